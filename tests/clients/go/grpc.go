package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"

	"github.com/a2aproject/a2a-go/a2a"
	"github.com/a2aproject/a2a-go/a2aclient"
	"github.com/a2aproject/a2a-go/a2agrpc"
	"github.com/a2aproject/a2a-go/a2asrv"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// serveGRPC serves the agent of agent.go by A2A's gRPC binding.
func serveGRPC(port string) {
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	a2agrpc.NewHandler(a2asrv.NewHandler(echo{})).RegisterWith(server)
	log.Fatal(server.Serve(listener))
}

// named sends x-kagent-host with every call. It notes the code that a call ended with: the SDK makes an error of its own
// of it.
func named(client *http.Client, code *string) []grpc.DialOption {
	host, _ := client.Transport.(hostHeader)
	with := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "x-kagent-host", string(host))
	}
	unary := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		err := invoke(with(ctx), method, request, reply, conn, options...)
		*code = status.Code(err).String()
		return err
	}
	stream := func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		return open(with(ctx), desc, conn, method, options...)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(unary), grpc.WithChainStreamInterceptor(stream),
	}
}

// askAgentGRPC calls the agent at base by gRPC; what it gets from an agent that cannot be reached is seen too.
func askAgentGRPC(ctx context.Context, client *http.Client, base string) (map[string]any, error) {
	seen := map[string]any{}
	place, err := url.Parse(base)
	if err != nil {
		return seen, err
	}
	endpoints := []a2a.AgentInterface{{URL: place.Host, Transport: a2a.TransportProtocolGRPC}}
	var code string
	agent, err := a2aclient.NewFromEndpoints(ctx, endpoints, a2aclient.WithGRPCTransport(named(client, &code)...))
	if err != nil {
		return seen, err
	}
	message := func() *a2a.MessageSendParams {
		return &a2a.MessageSendParams{Message: a2a.NewMessage(a2a.MessageRoleUser, a2a.TextPart{Text: "hi"})}
	}
	answer, err := agent.SendMessage(ctx, message())
	if err != nil {
		seen["code"], seen["message"] = code, err.Error()
		return seen, nil
	}
	task, ok := answer.(*a2a.Task)
	if !ok {
		return seen, fmt.Errorf("SendMessage answered %T", answer)
	}
	seen["state"], seen["artifacts"] = task.Status.State, len(task.Artifacts)
	var kinds []string
	for event, err := range agent.SendStreamingMessage(ctx, message()) {
		if err != nil {
			return seen, fmt.Errorf("SendStreamingMessage: %w", err)
		}
		kinds = append(kinds, fmt.Sprintf("%T", event))
	}
	seen["events"] = kinds
	again, err := agent.GetTask(ctx, &a2a.TaskQueryParams{ID: task.ID})
	if err != nil {
		return seen, fmt.Errorf("GetTask: %w", err)
	}
	seen["same task"] = again.ID == task.ID
	_, err = agent.GetTask(ctx, &a2a.TaskQueryParams{ID: "nobody"})
	seen["unknown task"], seen["unknown task code"] = fmt.Sprint(err), code
	return seen, nil
}
