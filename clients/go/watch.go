package sidejudge

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/sidejudge/sidejudge/clients/go/sidejudge/v1"
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// Optimize starts a run and yields its events from the first one to the last.
//
// It goes on by itself after a lost connection and a restart of the sidecar, as Watch does; the run
// belongs to the sidecar and does not end with the loop.
func (c *Client) Optimize(ctx context.Context, wanted *pb.Optimization) iter.Seq2[*pb.OptimizationEvent, error] {
	return func(yield func(*pb.OptimizationEvent, error) bool) {
		made, err := c.Optimization.CreateOptimization(ctx, &pb.CreateOptimizationRequest{Optimization: wanted})
		if err != nil {
			yield(nil, err)
			return
		}
		c.watch(ctx, &pb.WatchOptimizationRequest{Name: made.GetOptimization().GetName(), FromStart: true}, yield)
	}
}

// Watch yields the events of a run until it has ended.
//
// Without a token it begins with a snapshot, with the resume token of an event it goes on after that
// one. A lost connection or a restart of the sidecar costs a pause and no event; the loop ends with
// an error only if the run cannot be watched at all, or with the context.
func (c *Client) Watch(ctx context.Context, name, token string) iter.Seq2[*pb.OptimizationEvent, error] {
	return func(yield func(*pb.OptimizationEvent, error) bool) {
		c.watch(ctx, &pb.WatchOptimizationRequest{Name: name, ResumeToken: token}, yield)
	}
}

func (c *Client) watch(ctx context.Context, request *pb.WatchOptimizationRequest,
	yield func(*pb.OptimizationEvent, error) bool) {
	ctx, cancel := context.WithCancel(ctx) // ends the stream of a loop that was left
	defer cancel()
	pause := firstPause
	for {
		err := c.watchOnce(ctx, request, func(event *pb.OptimizationEvent) bool {
			pause = firstPause
			if token := event.GetResumeToken(); token != "" {
				request.ResumeToken, request.FromStart = token, false
			}
			return yield(event, nil)
		})
		if errors.Is(err, io.EOF) || errors.Is(err, errLeft) {
			return
		}
		if !isPassing(err) || !sleep(ctx, pause) {
			yield(nil, err)
			return
		}
		pause = min(2*pause, longestPause)
	}
}

var errLeft = errors.New("the loop was left")

// watchOnce reads one stream to its end, whose error it returns: io.EOF if the run has ended.
func (c *Client) watchOnce(ctx context.Context, request *pb.WatchOptimizationRequest,
	each func(*pb.OptimizationEvent) bool) error {
	stream, err := c.Optimization.WatchOptimization(ctx, request)
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if !each(answer.GetEvent()) {
			return errLeft
		}
	}
}

// isPassing says whether a stream may go on later: the sidecar is away, or a connection was cut.
func isPassing(err error) bool {
	var known *Error
	if !errors.As(err, &known) {
		return false
	}
	cut := known.Code == codes.Internal && known.Reason == pb.ErrorReason_ERROR_REASON_UNSPECIFIED
	return known.Code == codes.Unavailable || cut
}

// sleep waits for about a duration; false if the context ended before.
func sleep(ctx context.Context, duration time.Duration) bool {
	timer := time.NewTimer(duration/2 + rand.N(duration))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
