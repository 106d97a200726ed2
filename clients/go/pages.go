package sidejudge

import (
	"context"
	"iter"

	pb "github.com/sidejudge/sidejudge/clients/go/sidejudge/v1"
)

// Pages yields the items of all pages. fetch returns one page and the token of the next, "" on the last.
func Pages[T any](ctx context.Context,
	fetch func(ctx context.Context, token string) (items []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		token := ""
		for {
			items, next, err := fetch(ctx, token)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}

// ListEvaluations yields all evaluations that match, newest first.
func (c *Client) ListEvaluations(ctx context.Context, request *pb.ListEvaluationsRequest) iter.Seq2[*pb.Evaluation, error] {
	return Pages(ctx, func(ctx context.Context, token string) ([]*pb.Evaluation, string, error) {
		request.PageToken = token
		page, err := c.Evaluation.ListEvaluations(ctx, request)
		return page.GetEvaluations(), page.GetNextPageToken(), err
	})
}

// ListJudges yields all judges.
func (c *Client) ListJudges(ctx context.Context, request *pb.ListJudgesRequest) iter.Seq2[*pb.Judge, error] {
	return Pages(ctx, func(ctx context.Context, token string) ([]*pb.Judge, string, error) {
		request.PageToken = token
		page, err := c.Judges.ListJudges(ctx, request)
		return page.GetJudges(), page.GetNextPageToken(), err
	})
}

// ListFeedback yields all feedback that matches, newest first.
func (c *Client) ListFeedback(ctx context.Context, request *pb.ListFeedbackRequest) iter.Seq2[*pb.Feedback, error] {
	return Pages(ctx, func(ctx context.Context, token string) ([]*pb.Feedback, string, error) {
		request.PageToken = token
		page, err := c.Feedback.ListFeedback(ctx, request)
		return page.GetFeedback(), page.GetNextPageToken(), err
	})
}
