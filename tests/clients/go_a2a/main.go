// Command program is a2a-go v2, which speaks A2A 1.0, on both sides and over its three bindings.
//
//	program serve PORT | serve-grpc PORT
//	program jsonrpc URL HOST | rest URL HOST | grpc URL HOST
//
// A client sends x-kagent-host: HOST with every request and prints what it saw as one JSON object. Those of JSON-RPC and
// REST follow the URLs of the card.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2aclient/agentcard"
	a2agrpc "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// echo answers with a task: it works, produces five pieces, and is done.
type echo struct{}

func (echo) Execute(_ context.Context, request *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) {
		var events []a2a.Event
		if request.StoredTask == nil {
			events = append(events, a2a.NewSubmittedTask(request, request.Message))
		}
		events = append(events, a2a.NewStatusUpdateEvent(request, a2a.TaskStateWorking, nil))
		for n := range 5 {
			events = append(events, a2a.NewArtifactEvent(request, a2a.NewTextPart(fmt.Sprint("piece ", n))))
		}
		for _, event := range append(events, a2a.NewStatusUpdateEvent(request, a2a.TaskStateCompleted, nil)) {
			if !yield(event, nil) {
				return
			}
		}
	}
}

func (echo) Cancel(context.Context, *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(func(a2a.Event, error) bool) {}
}

// agent serves JSON-RPC at the root and REST below /rest, and the card with its own address in every URL.
func agent(port string) http.Handler {
	own := "http://127.0.0.1:" + port
	card := &a2a.AgentCard{
		Name: "go-helper", Description: "Echoes.", Version: "1",
		SupportedInterfaces: []*a2a.AgentInterface{
			a2a.NewAgentInterface(own+"/", a2a.TransportProtocolJSONRPC),
			a2a.NewAgentInterface(own+"/rest", a2a.TransportProtocolHTTPJSON),
		},
		DefaultInputModes: []string{"text"}, DefaultOutputModes: []string{"text"},
		Capabilities: a2a.AgentCapabilities{Streaming: true},
		Skills:       []a2a.AgentSkill{{ID: "echo", Name: "echo", Description: "Echoes.", Tags: []string{"x"}}},
	}
	handler := a2asrv.NewHandler(echo{})
	mux := http.NewServeMux()
	mux.Handle("/", a2asrv.NewJSONRPCHandler(handler))
	mux.Handle("/rest/", http.StripPrefix("/rest", a2asrv.NewRESTHandler(handler)))
	mux.Handle(a2asrv.WellKnownAgentCardPath, a2asrv.NewStaticAgentCardHandler(card))
	return mux
}

func serveGRPC(port string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	a2agrpc.NewHandler(a2asrv.NewHandler(echo{})).RegisterWith(server)
	return server.Serve(listener)
}

// hostHeader names the target of every request.
type hostHeader string

func (host hostHeader) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("x-kagent-host", string(host))
	return http.DefaultTransport.RoundTrip(request)
}

// byCard follows the card by one binding only.
func byCard(ctx context.Context, seen map[string]any, binding, base, host string) (*a2aclient.Client, error) {
	client := &http.Client{Transport: hostHeader(host)}
	card, err := agentcard.NewResolver(client).Resolve(ctx, base)
	if err != nil {
		return nil, fmt.Errorf("card: %w", err)
	}
	asked, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	stays := len(card.SupportedInterfaces) == 2
	for _, each := range card.SupportedInterfaces {
		named, err := url.Parse(each.URL)
		stays = stays && err == nil && named.Host == asked.Host
	}
	seen["card"], seen["card leads to where it was fetched"] = card.Name, stays
	only := a2aclient.WithJSONRPCTransport(client)
	if binding == "rest" {
		only = a2aclient.WithRESTTransport(client)
	}
	return a2aclient.NewFromCard(ctx, card, a2aclient.WithDefaultsDisabled(), only)
}

func byGRPC(ctx context.Context, base, host string) (*a2aclient.Client, error) {
	place, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	with := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "x-kagent-host", host)
	}
	unary := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		return invoke(with(ctx), method, request, reply, conn, options...)
	}
	stream := func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		return open(with(ctx), desc, conn, method, options...)
	}
	endpoints := []*a2a.AgentInterface{a2a.NewAgentInterface(place.Host, a2a.TransportProtocolGRPC)}
	return a2aclient.NewFromEndpoints(ctx, endpoints, a2agrpc.WithGRPCTransport(
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(unary), grpc.WithStreamInterceptor(stream)))
}

func ask(ctx context.Context, seen map[string]any, agent *a2aclient.Client) error {
	message := func() *a2a.SendMessageRequest {
		return &a2a.SendMessageRequest{Message: a2a.NewMessage(a2a.MessageRoleUser, a2a.NewTextPart("hi"))}
	}
	answer, err := agent.SendMessage(ctx, message())
	if err != nil {
		return fmt.Errorf("SendMessage: %w", err)
	}
	task, ok := answer.(*a2a.Task)
	if !ok {
		return fmt.Errorf("SendMessage answered %T", answer)
	}
	seen["state"], seen["artifacts"] = task.Status.State, len(task.Artifacts)
	var kinds []string
	for event, err := range agent.SendStreamingMessage(ctx, message()) {
		if err != nil {
			return fmt.Errorf("SendStreamingMessage: %w", err)
		}
		kinds = append(kinds, fmt.Sprintf("%T", event))
	}
	seen["events"] = kinds
	again, err := agent.GetTask(ctx, &a2a.GetTaskRequest{ID: task.ID})
	if err != nil {
		return fmt.Errorf("GetTask: %w", err)
	}
	seen["same task"] = again.ID == task.ID
	_, err = agent.GetTask(ctx, &a2a.GetTaskRequest{ID: "nobody"})
	seen["unknown task"] = fmt.Sprint(err)
	return nil
}

func client(binding, base, host string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	seen := map[string]any{}
	agent, err := byGRPC(ctx, base, host)
	if binding != "grpc" {
		agent, err = byCard(ctx, seen, binding, base, host)
	}
	if err != nil {
		return err
	}
	if err := ask(ctx, seen, agent); err != nil {
		return fmt.Errorf("%s: %w (seen so far: %v)", binding, err, seen)
	}
	return json.NewEncoder(os.Stdout).Encode(seen)
}

func main() {
	var err error
	switch mode, rest := os.Args[1], os.Args[2:]; mode {
	case "serve":
		err = http.ListenAndServe("127.0.0.1:"+rest[0], agent(rest[0]))
	case "serve-grpc":
		err = serveGRPC(rest[0])
	default:
		err = client(mode, rest[0], rest[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}
