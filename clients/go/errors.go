package sidejudge

import (
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/sidejudge/sidejudge/clients/go/sidejudge/v1"
)

// Violation is a wrong field of a request: its path and what is wrong.
type Violation struct{ Field, Description string }

// Error is a failed call. Take it from any error of the client with errors.As, and switch on Reason.
type Error struct {
	// Code is the gRPC code.
	Code codes.Code
	// Reason says what happened; unspecified if the sidecar did not answer, or is newer.
	Reason pb.ErrorReason
	// Message says what went wrong and the way out.
	Message string
	// Metadata hold what a program acts on, such as the run that is in the way.
	Metadata map[string]string
	// Violations are all wrong fields of the request.
	Violations []Violation
	// RetryAfter says when to come back; 0 if it does not say.
	RetryAfter time.Duration
	// CallID finds the call in the log of the sidecar.
	CallID string

	status *status.Status
}

// Error returns code, reason and message in one line.
func (e *Error) Error() string {
	if e.Reason == pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return fmt.Sprintf("sidejudge: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("sidejudge: %s %s: %s", e.Code, e.Reason, e.Message)
}

// GRPCStatus lets status.FromError and status.Code see the status.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// ReasonOf returns the reason of an error, unspecified if it has none.
func ReasonOf(err error) pb.ErrorReason {
	var known *Error
	if errors.As(err, &known) {
		return known.Reason
	}
	return pb.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// asError gives an error of gRPC its parts; the end of a stream and other errors stay as they are.
func asError(err error, trailing metadata.MD) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	found, ok := status.FromError(err)
	if !ok {
		found = status.FromContextError(err)
	}
	result := &Error{Code: found.Code(), Message: found.Message(), status: found}
	if ids := trailing.Get("x-request-id"); len(ids) > 0 {
		result.CallID = ids[0]
	}
	for _, detail := range found.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			result.Reason = pb.ErrorReason(pb.ErrorReason_value["ERROR_REASON_"+d.GetReason()])
			result.Metadata = d.GetMetadata()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				result.Violations = append(result.Violations, Violation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			result.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return result
}
