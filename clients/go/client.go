// Package sidejudge connects Go programs to a sidejudge sidecar.
//
// Connect gives typed stubs of all services with what every caller needs: a default deadline,
// retries that never judge twice, errors with reasons, and streams that go on after a restart.
package sidejudge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "github.com/sidejudge/sidejudge/clients/go/sidejudge/v1"
)

const (
	// DefaultAddress is where a sidecar listens unless it is told otherwise.
	DefaultAddress = "127.0.0.1:50510"
	// DefaultTimeout is the deadline of calls whose context has none; streams have none.
	DefaultTimeout  = 60 * time.Second
	maxMessageBytes = 16 << 20
)

// A restarting sidecar is back within seconds: five attempts bridge it.
const retryPolicy = `{"methodConfig": [{"name": [{}], "retryPolicy": {
	"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// Client is a connection with the stubs of all services. It is safe for concurrent use.
type Client struct {
	Evaluation   pb.EvaluationServiceClient
	Judges       pb.JudgeServiceClient
	Feedback     pb.FeedbackServiceClient
	Optimization pb.OptimizationServiceClient
	Experiments  pb.ExperimentServiceClient
	Monitoring   pb.MonitoringServiceClient
	Review       pb.ReviewServiceClient
	Trust        pb.TrustServiceClient
	Juries       pb.JuryServiceClient
	Analytics    pb.AnalyticsServiceClient
	Server       pb.ServerServiceClient

	conn *grpc.ClientConn
}

type settings struct {
	tls     *tls.Config
	token   string
	timeout time.Duration
	dial    []grpc.DialOption
}

// Option changes how Connect connects.
type Option func(*settings)

// WithTLS encrypts the connection; a config with certificates gives mutual TLS.
func WithTLS(config *tls.Config) Option { return func(s *settings) { s.tls = config } }

// WithToken sends a bearer token with every call.
func WithToken(token string) Option { return func(s *settings) { s.token = token } }

// WithTimeout sets the deadline of calls whose context has none; 0 for none.
func WithTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.timeout = timeout }
}

// WithDialOptions adds options of gRPC, such as a stats handler for OpenTelemetry.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

// Connect returns a client for host:port or unix:///path; nothing is sent before the first call.
//
// It refuses a token on an unencrypted connection that leaves the machine.
func Connect(address string, options ...Option) (*Client, error) {
	chosen := settings{timeout: DefaultTimeout}
	for _, option := range options {
		option(&chosen)
	}
	transport := insecure.NewCredentials()
	if chosen.tls != nil {
		transport = credentials.NewTLS(chosen.tls)
	} else if chosen.token != "" && !isLocal(address) {
		return nil, errors.New("sidejudge: a token must not leave the machine unencrypted; add WithTLS")
	}
	calls := interceptors{timeout: chosen.timeout, token: chosen.token}
	dial := append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(retryPolicy),
		grpc.WithChainUnaryInterceptor(calls.unary),
		grpc.WithChainStreamInterceptor(calls.stream),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute}),
	}, chosen.dial...)
	conn, err := grpc.NewClient(target(address), dial...)
	if err != nil {
		return nil, fmt.Errorf("sidejudge: %q is not host:port or unix:///path: %w", address, err)
	}
	return &Client{
		Evaluation:   pb.NewEvaluationServiceClient(conn),
		Judges:       pb.NewJudgeServiceClient(conn),
		Feedback:     pb.NewFeedbackServiceClient(conn),
		Optimization: pb.NewOptimizationServiceClient(conn),
		Experiments:  pb.NewExperimentServiceClient(conn),
		Monitoring:   pb.NewMonitoringServiceClient(conn),
		Review:       pb.NewReviewServiceClient(conn),
		Trust:        pb.NewTrustServiceClient(conn),
		Juries:       pb.NewJuryServiceClient(conn),
		Analytics:    pb.NewAnalyticsServiceClient(conn),
		Server:       pb.NewServerServiceClient(conn),
		conn:         conn,
	}, nil
}

// Conn returns the connection, for further stubs such as grpc.health.v1.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// Close ends the connection; calls in progress fail.
func (c *Client) Close() error { return c.conn.Close() }

// target keeps gRPC from resolving an address through a proxy or DNS where it has a port already.
func target(address string) string {
	if strings.HasPrefix(address, "unix:") || strings.Contains(address, "://") {
		return address
	}
	return "dns:///" + address
}

func isLocal(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

type interceptors struct {
	timeout time.Duration
	token   string
}

func (i interceptors) unary(ctx context.Context, method string, request, reply any,
	conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if _, has := ctx.Deadline(); !has && i.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, i.timeout)
		defer cancel()
	}
	fillRequestIDs(request)
	caught := newTrailer()
	err := invoke(withToken(ctx, i.token), method, request, reply, conn, append(options, caught.option())...)
	return asError(err, caught.md)
}

func (i interceptors) stream(ctx context.Context, description *grpc.StreamDesc, conn *grpc.ClientConn,
	method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(withToken(ctx, i.token), description, conn, method, options...)
	if err != nil {
		return nil, asError(err, nil)
	}
	return &clientStream{stream}, nil
}

// clientStream fills in request ids and gives errors their reasons.
type clientStream struct{ grpc.ClientStream }

func (s *clientStream) SendMsg(message any) error {
	fillRequestIDs(message)
	return asError(s.ClientStream.SendMsg(message), nil)
}

func (s *clientStream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	if err == nil {
		return nil
	}
	return asError(err, s.Trailer())
}
