package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type none struct{}

type sum struct {
	A int `json:"a"`
	B int `json:"b"`
}

type text struct {
	Text string `json:"text"`
}

func say(words string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: words}}}
}

// tools serves both transports of one server.
func tools() http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "go-tools", Version: "1"}, nil)
	var cancelled atomic.Bool
	mcp.AddTool(server, &mcp.Tool{Name: "add", Description: "Adds."},
		func(_ context.Context, _ *mcp.CallToolRequest, in sum) (*mcp.CallToolResult, any, error) {
			return say(fmt.Sprint(in.A + in.B)), nil, nil
		})
	mcp.AddTool(server, &mcp.Tool{Name: "echo", Description: "Gives a text back."},
		func(_ context.Context, _ *mcp.CallToolRequest, in text) (*mcp.CallToolResult, any, error) {
			return say(in.Text), nil, nil
		})
	mcp.AddTool(server, &mcp.Tool{Name: "grow", Description: "Adds a tool, which every client is told of."},
		func(_ context.Context, _ *mcp.CallToolRequest, in text) (*mcp.CallToolResult, any, error) {
			server.AddTool(&mcp.Tool{Name: in.Text, InputSchema: map[string]any{"type": "object"}},
				func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) { return say("new"), nil })
			return say("grown"), nil, nil
		})
	mcp.AddTool(server, &mcp.Tool{Name: "wait", Description: "Waits until it is cancelled."},
		func(ctx context.Context, request *mcp.CallToolRequest, _ none) (*mcp.CallToolResult, any, error) {
			_ = request.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
				ProgressToken: request.Params.GetProgressToken(), Progress: 1,
			})
			<-ctx.Done()
			cancelled.Store(true)
			return nil, nil, ctx.Err()
		})
	mcp.AddTool(server, &mcp.Tool{Name: "cancelled", Description: "Whether wait was cancelled."},
		func(context.Context, *mcp.CallToolRequest, none) (*mcp.CallToolResult, any, error) {
			return say(fmt.Sprint(cancelled.Swap(false))), nil, nil
		})
	get := func(*http.Request) *mcp.Server { return server }
	mux := http.NewServeMux()
	mux.Handle("/mcp", mcp.NewStreamableHTTPHandler(get, nil))
	mux.Handle("/sse", mcp.NewSSEHandler(get, nil))
	return mux
}

func useTools(ctx context.Context, client *http.Client, base string) (map[string]any, error) {
	return use(ctx, &mcp.StreamableClientTransport{Endpoint: base + "/mcp", HTTPClient: client})
}

func useToolsOverSSE(ctx context.Context, client *http.Client, base string) (map[string]any, error) {
	return use(ctx, &mcp.SSEClientTransport{Endpoint: base + "/sse", HTTPClient: client})
}

func use(ctx context.Context, transport mcp.Transport) (map[string]any, error) {
	seen := map[string]any{}
	changed, waits := make(chan struct{}, 100), make(chan struct{}, 100)
	client := mcp.NewClient(&mcp.Implementation{Name: "go-client", Version: "1"}, &mcp.ClientOptions{
		ToolListChangedHandler:      func(context.Context, *mcp.ToolListChangedRequest) { changed <- struct{}{} },
		ProgressNotificationHandler: func(context.Context, *mcp.ProgressNotificationClientRequest) { waits <- struct{}{} },
	})
	session, err := client.Connect(ctx, transport, nil)
	if err != nil {
		return seen, fmt.Errorf("initialize: %w", err)
	}
	seen["server"] = session.InitializeResult().ServerInfo.Name
	seen["protocol"] = session.InitializeResult().ProtocolVersion
	call := func(ctx context.Context, name string, arguments any) (string, error) {
		result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: arguments})
		if err != nil {
			return "", fmt.Errorf("tools/call %s: %w", name, err)
		}
		return result.Content[0].(*mcp.TextContent).Text, nil
	}
	if seen["add"], err = call(ctx, "add", sum{2, 3}); err != nil {
		return seen, err
	}
	big := strings.Repeat("x", 1<<20)
	echoed, err := call(ctx, "echo", text{big})
	if err != nil {
		return seen, err
	}
	seen["big"] = echoed == big

	// A notification of the server's own: over streamable HTTP it comes on the standalone GET.
	if _, err = call(ctx, "grow", text{fmt.Sprint("grown-", time.Now().UnixNano())}); err != nil {
		return seen, err
	}
	select {
	case <-changed:
		seen["notified"] = true
	case <-ctx.Done():
		return seen, fmt.Errorf("no list_changed: %w", ctx.Err())
	}

	// A call that is given up while it runs is cancelled at the server.
	waiting, giveUp := context.WithCancel(ctx)
	go func() {
		<-waits
		giveUp()
	}()
	params := &mcp.CallToolParams{Name: "wait", Arguments: none{}}
	params.SetProgressToken("p")
	_, err = session.CallTool(waiting, params)
	seen["given up"] = err != nil
	for {
		done, err := call(ctx, "cancelled", none{})
		if err != nil {
			return seen, err
		}
		if done == "true" {
			break
		}
	}
	seen["cancelled"] = true
	_, err = call(ctx, "no such tool", none{})
	seen["unknown tool"] = fmt.Sprint(err)
	seen["closed"] = session.Close() == nil
	return seen, nil
}
