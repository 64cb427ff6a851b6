// Command program is the Go side of the suite of eras: a client of the MCP go-sdk 1.8 that follows orders, and a
// server for both eras.
//
//	program serve PORT | client MODE HOST
//
// `../eras.py` has the orders.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type none struct{}

type sum struct {
	A int `json:"a"`
	B int `json:"b"`
}

func say(words string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: words}}}
}

func serve(port string) error {
	server := mcp.NewServer(&mcp.Implementation{Name: "go-tools", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "add", Description: "Adds."},
		func(_ context.Context, _ *mcp.CallToolRequest, in sum) (*mcp.CallToolResult, any, error) {
			return say(fmt.Sprint(in.A + in.B)), nil, nil
		})
	// Only a stateless server speaks 2026-07-28.
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server },
		&mcp.StreamableHTTPOptions{Stateless: true})
	return http.ListenAndServe("127.0.0.1:"+port, handler)
}

// hostHeader names the target of every request.
type hostHeader string

func (host hostHeader) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("x-kagent-host", string(host))
	return http.DefaultTransport.RoundTrip(request)
}

type orders struct {
	mode    string
	http    *http.Client
	session *mcp.ClientSession
}

func (o *orders) connect(ctx context.Context, url string) map[string]any {
	options := &mcp.ClientSessionOptions{}
	if o.mode == "legacy" {
		options.ProtocolVersion = "2025-11-25"
	}
	for tries := 1; ; tries++ {
		client := mcp.NewClient(&mcp.Implementation{Name: "eras", Version: "1"}, nil)
		transport := &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: o.http, MaxRetries: -1}
		session, err := client.Connect(ctx, transport, options)
		if err == nil {
			o.session = session
			return map[string]any{"tries": tries, "protocol": session.InitializeResult().ProtocolVersion}
		}
		fmt.Fprintln(os.Stderr, tries, err)
		time.Sleep(20 * time.Millisecond) // between two tries
	}
}

func (o *orders) call(ctx context.Context, name string) map[string]any {
	params := &mcp.CallToolParams{Name: name, Arguments: none{}}
	if name == "add" {
		params.Arguments = sum{2, 3}
	}
	result, err := o.session.CallTool(ctx, params)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return map[string]any{"error": true}
	}
	return map[string]any{"told": result.IsError, "text": result.Content[0].(*mcp.TextContent).Text}
}

func main() {
	if os.Args[1] == "serve" {
		log.Fatal(serve(os.Args[2]))
	}
	o := &orders{mode: os.Args[2], http: &http.Client{Transport: hostHeader(os.Args[3])}}
	answer := json.NewEncoder(os.Stdout)
	write := func(what map[string]any) {
		if err := answer.Encode(what); err != nil {
			log.Fatal(err)
		}
	}
	write(map[string]any{"ready": true})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var order []string
		if err := json.Unmarshal(lines.Bytes(), &order); err != nil {
			log.Fatal(err)
		}
		switch order[0] {
		case "connect":
			write(o.connect(context.Background(), order[1]))
		case "call":
			write(o.call(context.Background(), order[1]))
		}
	}
}
