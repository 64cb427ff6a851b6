package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type order struct {
	Client   string `json:"client"`
	Number   int    `json:"number"`
	Gate     string `json:"gate"`
	Announce bool   `json:"announce"`
}

// counters of the sessions. Counting and its mark are one step, so that the marks are in order.
type counters struct {
	sync.Mutex
	values map[*mcp.ServerSession]int
}

// tools is the server without a transport. A session that has no id of its own, as over stdio, is called `name`.
func tools(pod, path, name string) (*mcp.Server, func(object)) {
	marks, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	mark := func(what object) {
		what["pod"] = pod
		line(marks, what)
		if err := marks.Sync(); err != nil {
			log.Fatal(err)
		}
	}
	server := mcp.NewServer(&mcp.Implementation{Name: "chaos", Version: "1"}, nil)
	server.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
			result, err := next(ctx, method, request)
			// Behind kmcp's adapter, that one says so.
			if params, opens := request.GetParams().(*mcp.InitializeParams); opens && err == nil && name == "" {
				session := request.GetSession().ID()
				mark(object{"step": "opened", "client": params.ClientInfo.Title, "session": session})
			}
			return result, err
		}
	})
	kept := &counters{values: map[*mcp.ServerSession]int{}}
	mcp.AddTool(server, &mcp.Tool{Name: "count", Description: "Counts the calls of the session."},
		func(_ context.Context, request *mcp.CallToolRequest, in order) (*mcp.CallToolResult, any, error) {
			session, name := request.Session, name
			if name == "" {
				name = session.ID()
			}
			kept.Lock()
			kept.values[session]++
			counter := kept.values[session]
			mark(object{
				"step": "began", "client": in.Client, "number": in.Number, "session": name, "counter": counter,
			})
			kept.Unlock()
			text, err := json.Marshal(object{
				"pod": pod, "client": in.Client, "number": in.Number, "session": name, "counter": counter,
			})
			if err != nil {
				return nil, nil, err
			}
			if in.Announce {
				// Outside of a request's context: on the standalone stream. A log message would need a level first.
				token := fmt.Sprintf("stream %s %d", in.Client, in.Number)
				params := &mcp.ProgressNotificationParams{ProgressToken: token, Progress: 1}
				_ = session.NotifyProgress(context.Background(), params)
			}
			for in.Gate != "" {
				if _, err := os.Stat(in.Gate); err == nil {
					break
				}
				time.Sleep(5 * time.Millisecond) // between two looks at the gate
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: string(text)}}}, nil, nil
		})
	return server, mark
}

// pipe serves one session over stdio.
func pipe(pod, path, name string) {
	server, _ := tools(pod, path, name)
	if err := server.Run(context.Background(), &mcp.StdioTransport{}); err != nil {
		log.Print(err)
	}
}

func serve(port, pod, path string) {
	server, mark := tools(pod, path, "")
	var handler atomic.Pointer[mcp.StreamableHTTPHandler]
	renew := func() {
		handler.Store(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil))
	}
	renew()
	address := os.Getenv("CHAOS_ADDRESS") // pods of a cluster are not on loopback
	if address == "" {
		address = "127.0.0.1"
	}
	web := &http.Server{Addr: address + ":" + port}
	web.Handler = http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		handler.Load().ServeHTTP(writer, request)
	})
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		for received := range signals {
			if received == syscall.SIGTERM {
				break
			}
			// Every session goes as one does that was idle for too long.
			renew()
			for session := range server.Sessions() {
				_ = session.Close()
			}
			mark(object{"step": "forgot"})
		}
		// Calls may end, event streams do not.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = web.Shutdown(ctx)
		close(ended)
	}()
	if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-ended
}
