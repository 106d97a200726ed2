package sidejudge_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidejudge/sidejudge/clients/go"
	pb "github.com/sidejudge/sidejudge/clients/go/sidejudge/v1"
)

// These run against a real sidecar; tests/clients/test_go.py starts one and says where.

func address(t *testing.T) string {
	t.Helper()
	found := os.Getenv("SIDEJUDGE_TEST_ADDRESS")
	if found == "" {
		t.Skip("SIDEJUDGE_TEST_ADDRESS names no sidecar; run make test-go")
	}
	return found
}

func connect(t *testing.T, options ...sidejudge.Option) *sidejudge.Client {
	t.Helper()
	client, err := sidejudge.Connect(address(t), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func item(text string) *pb.EvaluateRequest {
	return &pb.EvaluateRequest{
		Judge:         "judges/safety",
		OmitReasoning: true,
		Input: &pb.EvaluateRequest_ArtifactInput{ArtifactInput: &pb.ArtifactInput{
			Artifact: text, Context: "What was asked."}},
	}
}

func reason(t *testing.T, err error) *sidejudge.Error {
	t.Helper()
	var known *sidejudge.Error
	if !errors.As(err, &known) {
		t.Fatalf("%v is no *sidejudge.Error", err)
	}
	return known
}

func TestEvaluateAndCorrect(t *testing.T) {
	client, ctx := connect(t), t.Context()
	request := item("p(yes)=0.9 Zoë")
	answer, err := client.Evaluation.Evaluate(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.GetEvaluation().GetJudgment().GetVerdict(); got != pb.Verdict_VERDICT_PASS {
		t.Errorf("verdict %v", got)
	}
	// The id that was filled in stays in the request: sending it again asks nobody.
	again, err := client.Evaluation.Evaluate(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	if again.GetEvaluation().GetName() != answer.GetEvaluation().GetName() {
		t.Error("a repeat judged again")
	}
	_, err = client.Feedback.RecordFeedback(ctx, &pb.RecordFeedbackRequest{Feedback: &pb.Feedback{
		Evaluation: answer.GetEvaluation().GetName(),
		Correction: &pb.Feedback_Verdict{Verdict: pb.Verdict_VERDICT_FAIL},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestErrorsHaveReasonsAndEveryViolation(t *testing.T) {
	client, ctx := connect(t), t.Context()
	request := item("text")
	request.Judge = "judges/none"
	_, err := client.Evaluation.Evaluate(ctx, request)
	known := reason(t, err)
	if known.Reason != pb.ErrorReason_ERROR_REASON_JUDGE_NOT_FOUND || known.Code != codes.NotFound {
		t.Errorf("got %v", known)
	}
	if known.CallID == "" || known.Metadata["judge"] != "judges/none" {
		t.Errorf("call id %q, metadata %v", known.CallID, known.Metadata)
	}
	if status.Code(err) != codes.NotFound || sidejudge.ReasonOf(err) != known.Reason {
		t.Error("status and reason can be read from the error too")
	}
	_, err = client.Evaluation.Evaluate(ctx, &pb.EvaluateRequest{Judge: "x"})
	fields := ""
	for _, violation := range reason(t, err).Violations {
		fields += violation.Field + " "
	}
	if !strings.Contains(fields, "judge") || !strings.Contains(fields, "input") {
		t.Errorf("violations of %q", fields)
	}
}

func TestBatchAnswersEachItem(t *testing.T) {
	client, ctx := connect(t), t.Context()
	wrong := item("text")
	wrong.Judge = "judges/none"
	batch := &pb.BatchEvaluateRequest{Requests: []*pb.EvaluateRequest{item("p(yes)=0.9"), wrong}}
	stream, err := client.Evaluation.BatchEvaluate(ctx, batch)
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[int32]*pb.BatchEvaluateResponse{}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		outcomes[answer.GetIndex()] = answer
	}
	if outcomes[0].GetEvaluation() == nil || outcomes[1].GetError() == nil {
		t.Errorf("outcomes %v", outcomes)
	}
	if batch.GetRequests()[0].GetRequestId() == "" {
		t.Error("items of a batch get an id too")
	}
}

func TestPagesYieldEverythingOnce(t *testing.T) {
	client, ctx := connect(t), t.Context()
	names := map[string]bool{}
	for judge, err := range client.ListJudges(ctx, &pb.ListJudgesRequest{PageSize: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		if names[judge.GetName()] {
			t.Errorf("%s came twice", judge.GetName())
		}
		names[judge.GetName()] = true
	}
	if len(names) < 5 {
		t.Errorf("only %v", names)
	}
	for _, err := range client.ListJudges(ctx, &pb.ListJudgesRequest{PageSize: -1}) {
		if reason(t, err).Reason != pb.ErrorReason_ERROR_REASON_INVALID_REQUEST {
			t.Error(err)
		}
	}
}

func TestDeadlineIsSetAndKept(t *testing.T) {
	client := connect(t, sidejudge.WithTimeout(time.Nanosecond))
	_, err := client.Evaluation.Evaluate(t.Context(), item("text"))
	if got := reason(t, err).Code; got != codes.DeadlineExceeded {
		t.Errorf("code %v", got)
	}
}

func TestNobodyThereAndClosed(t *testing.T) {
	address(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	absent := listener.Addr().String()
	_ = listener.Close()
	client, err := sidejudge.Connect(absent)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = client.Evaluation.Evaluate(ctx, item("text"))
	if got := reason(t, err).Code; got != codes.Unavailable {
		t.Errorf("code %v", got)
	}
	_ = client.Close()
	_, err = client.Evaluation.Evaluate(ctx, item("text"))
	if got := reason(t, err).Code; got != codes.Canceled {
		t.Errorf("code after close %v", got)
	}
}

func TestTokensStayOnTheMachine(t *testing.T) {
	if _, err := sidejudge.Connect("judge.example:50510", sidejudge.WithToken("secret")); err == nil {
		t.Error("a token went to another machine unencrypted")
	}
	if _, err := sidejudge.Connect("127.0.0.1:50510", sidejudge.WithToken("secret")); err != nil {
		t.Error(err)
	}
}

// proxy passes bytes on to the sidecar and cuts all connections when it is told to.
type proxy struct {
	listener net.Listener
	mutex    sync.Mutex
	open     []net.Conn
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener}
	t.Cleanup(func() { _ = listener.Close(); p.cut() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mutex.Lock()
			p.open = append(p.open, in, out)
			p.mutex.Unlock()
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}()
	return p
}

func (p *proxy) cut() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, conn := range p.open {
		_ = conn.Close()
	}
	p.open = nil
}

// isOfTheLog says whether an event has a number of its own: snapshots and heartbeats repeat one.
func isOfTheLog(event *pb.OptimizationEvent) bool {
	return event.GetSnapshot() == nil && event.GetHeartbeat() == nil
}

func TestWatchGoesOnWhereItWasCut(t *testing.T) {
	through := newProxy(t, address(t))
	client, err := sidejudge.Connect(through.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	wanted := &pb.Optimization{Judge: os.Getenv("SIDEJUDGE_TEST_JUDGE"), Config: &pb.OptimizationConfig{
		NumTrials: proto32(3), NumCandidates: proto32(3), MaxBootstrappedDemos: proto32(0), MaxLabeledDemos: proto32(0),
		InstructionSource: pb.OptimizationConfig_INSTRUCTION_SOURCE_CURATED,
	}}
	var last int64
	var token string
	cuts := 0
	for event, err := range client.Optimize(t.Context(), wanted) {
		if err != nil {
			t.Fatal(err)
		}
		if !isOfTheLog(event) {
			continue
		}
		if event.GetSequence() != last+1 {
			t.Fatalf("event %d came after %d", event.GetSequence(), last)
		}
		last = event.GetSequence()
		if last == 2 {
			token = event.GetResumeToken()
		}
		if last%3 == 1 {
			cuts++
			through.cut()
		}
	}
	if last < 4 || cuts < 2 {
		t.Fatalf("%d events, %d cuts", last, cuts)
	}
	// Another program goes on from a token that this one kept.
	runs, err := client.Optimization.ListOptimizations(t.Context(), &pb.ListOptimizationsRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	seen := int64(2)
	for event, err := range client.Watch(t.Context(), runs.GetOptimizations()[0].GetName(), token) {
		if err != nil {
			t.Fatal(err)
		}
		if !isOfTheLog(event) {
			continue
		}
		if event.GetSequence() != seen+1 {
			t.Fatalf("event %d came after %d", event.GetSequence(), seen)
		}
		seen = event.GetSequence()
	}
	if seen != last {
		t.Errorf("went on to %d of %d", seen, last)
	}
}

func TestALoopThatIsLeftLeavesNothingBehind(t *testing.T) {
	client := connect(t)
	runs, err := client.Optimization.ListOptimizations(t.Context(), &pb.ListOptimizationsRequest{PageSize: 1})
	if err != nil || len(runs.GetOptimizations()) == 0 {
		t.Skip("no run to watch")
	}
	name := runs.GetOptimizations()[0].GetName()
	for range client.Watch(t.Context(), name, "") {
		break
	}
	before := runtime.NumGoroutine()
	for range 20 {
		for range client.Watch(t.Context(), name, "") {
			break
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before+5 {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
	for _, err := range client.Watch(t.Context(), "optimizations/none", "") {
		if reason(t, err).Reason != pb.ErrorReason_ERROR_REASON_OPTIMIZATION_NOT_FOUND {
			t.Error(err)
		}
	}
}

func proto32(value int32) *int32 { return &value }
