package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/a2aproject/a2a-go/a2a"
	"github.com/a2aproject/a2a-go/a2aclient"
	"github.com/a2aproject/a2a-go/a2aclient/agentcard"
	"github.com/a2aproject/a2a-go/a2asrv"
	"github.com/a2aproject/a2a-go/a2asrv/eventqueue"
)

// echo answers with a task: it works, produces five pieces, and is done.
type echo struct{}

func (echo) Execute(ctx context.Context, request *a2asrv.RequestContext, queue eventqueue.Queue) error {
	events := []a2a.Event{a2a.NewStatusUpdateEvent(request, a2a.TaskStateWorking, nil)}
	if request.StoredTask == nil {
		events = append([]a2a.Event{a2a.NewSubmittedTask(request, request.Message)}, events...)
	}
	for n := range 5 {
		events = append(events, a2a.NewArtifactEvent(request, a2a.TextPart{Text: fmt.Sprint("piece ", n)}))
	}
	done := a2a.NewStatusUpdateEvent(request, a2a.TaskStateCompleted, nil)
	done.Final = true
	for _, event := range append(events, done) {
		if err := queue.Write(ctx, event); err != nil {
			return err
		}
	}
	return nil
}

func (echo) Cancel(context.Context, *a2asrv.RequestContext, eventqueue.Queue) error { return nil }

// agent serves the card with its own address in every URL, as kagent's agents do.
func agent(port string) http.Handler {
	own := "http://127.0.0.1:" + port + "/"
	card := &a2a.AgentCard{
		Name: "go-helper", Description: "Echoes.", Version: "1", ProtocolVersion: "0.3.0",
		URL: own, PreferredTransport: a2a.TransportProtocolJSONRPC,
		AdditionalInterfaces: []a2a.AgentInterface{{URL: own, Transport: a2a.TransportProtocolJSONRPC}},
		DefaultInputModes:    []string{"text"}, DefaultOutputModes: []string{"text"},
		Capabilities: a2a.AgentCapabilities{Streaming: true},
		Skills:       []a2a.AgentSkill{{ID: "echo", Name: "echo", Description: "Echoes.", Tags: []string{"x"}}},
	}
	mux := http.NewServeMux()
	mux.Handle("/", a2asrv.NewJSONRPCHandler(a2asrv.NewHandler(echo{})))
	mux.Handle(a2asrv.WellKnownAgentCardPath, a2asrv.NewStaticAgentCardHandler(card))
	return mux
}

// askAgent follows the card, as NewFromCard does in kagent's runtime.
func askAgent(ctx context.Context, client *http.Client, base string) (map[string]any, error) {
	seen := map[string]any{}
	card, err := agentcard.NewResolver(client).Resolve(ctx, base)
	if err != nil {
		return seen, fmt.Errorf("card: %w", err)
	}
	seen["card"] = card.Name
	asked, err := url.Parse(base)
	if err != nil {
		return seen, err
	}
	stays := true
	for _, text := range []string{card.URL, card.AdditionalInterfaces[0].URL} {
		named, err := url.Parse(text)
		stays = stays && err == nil && named.Host == asked.Host && named.Path == "/"
	}
	seen["card leads to where it was fetched"] = stays
	agent, err := a2aclient.NewFromCard(ctx, card, a2aclient.WithJSONRPCTransport(client))
	if err != nil {
		return seen, err
	}
	message := func() *a2a.MessageSendParams {
		return &a2a.MessageSendParams{Message: a2a.NewMessage(a2a.MessageRoleUser, a2a.TextPart{Text: "hi"})}
	}
	answer, err := agent.SendMessage(ctx, message())
	if err != nil {
		return seen, fmt.Errorf("message/send: %w", err)
	}
	task, ok := answer.(*a2a.Task)
	if !ok {
		return seen, fmt.Errorf("message/send answered %T", answer)
	}
	seen["state"], seen["artifacts"] = task.Status.State, len(task.Artifacts)
	var kinds []string
	for event, err := range agent.SendStreamingMessage(ctx, message()) {
		if err != nil {
			return seen, fmt.Errorf("message/stream: %w", err)
		}
		kinds = append(kinds, fmt.Sprintf("%T", event))
	}
	seen["events"] = kinds
	again, err := agent.GetTask(ctx, &a2a.TaskQueryParams{ID: task.ID})
	if err != nil {
		return seen, fmt.Errorf("tasks/get: %w", err)
	}
	seen["same task"] = again.ID == task.ID
	_, err = agent.GetTask(ctx, &a2a.TaskQueryParams{ID: "nobody"})
	seen["unknown task"] = fmt.Sprint(err)
	return seen, nil
}
