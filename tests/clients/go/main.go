// Command program is the Go side of the client suites: servers and clients of a2a-go v0.3 (what kagent 0.10's
// default runtime uses) and of the MCP go-sdk, chosen by the first argument.
//
//	program serve-a2a PORT | serve-a2a-grpc PORT | serve-mcp PORT
//	program a2a URL HOST | a2a-grpc URL HOST | mcp URL HOST | sse URL HOST
//
// A client sends x-kagent-host: HOST with every request, as kagent's runtime does, and prints what it saw as
// one JSON object.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	mode, rest := os.Args[1], os.Args[2:]
	switch mode {
	case "serve-a2a":
		log.Fatal(http.ListenAndServe("127.0.0.1:"+rest[0], agent(rest[0])))
	case "serve-a2a-grpc":
		serveGRPC(rest[0])
	case "serve-mcp":
		log.Fatal(http.ListenAndServe("127.0.0.1:"+rest[0], tools()))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client := &http.Client{Transport: hostHeader(rest[1])}
	clients := map[string]func(context.Context, *http.Client, string) (map[string]any, error){
		"a2a": askAgent, "a2a-grpc": askAgentGRPC, "mcp": useTools, "sse": useToolsOverSSE,
	}
	seen, err := clients[mode](ctx, client, rest[0])
	if err != nil {
		log.Fatalf("%s: %v (seen so far: %v)", mode, err, seen)
	}
	line, err := json.Marshal(seen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
}

// hostHeader names the target of every request, redirected ones included.
type hostHeader string

func (host hostHeader) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("x-kagent-host", string(host))
	return http.DefaultTransport.RoundTrip(request)
}
