package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type command struct {
	order
	Do    string  `json:"do"`
	Limit float64 `json:"limit"`
}

func say(what object) { line(os.Stdout, what) }

// client has a transport and a session of its own.
type client struct {
	name    string
	mutex   sync.Mutex
	session *mcp.ClientSession
	calls   sync.WaitGroup
}

// follow does what standard input says until it ends.
func follow(url, host string) {
	clients := map[string]*client{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var what command
		if err := json.Unmarshal(lines.Bytes(), &what); err != nil {
			log.Fatal(err)
		}
		switch what.Do {
		case "open":
			clients[what.Client] = &client{name: what.Client}
			go clients[what.Client].live(url, host)
		case "close":
			go clients[what.Client].close()
		case "ping":
			say(object{"client": what.Client, "event": "pong"})
		default:
			go clients[what.Client].answer(what)
		}
	}
}

// hostHeader names the target of every request.
type hostHeader struct {
	host string
	next http.RoundTripper
}

func (header hostHeader) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("x-kagent-host", header.host)
	return header.next.RoundTrip(request)
}

// live is the life of one session, from opened to ended.
func (client *client) live(url, host string) {
	heard := func(text any) { say(object{"client": client.name, "event": "heard", "text": fmt.Sprint(text)}) }
	pool := http.DefaultTransport.(*http.Transport).Clone()
	defer pool.CloseIdleConnections()
	transport := &mcp.StreamableClientTransport{
		Endpoint: url, HTTPClient: &http.Client{Transport: hostHeader{host, pool}},
	}
	sdk := mcp.NewClient(&mcp.Implementation{Name: "go-client", Version: "1", Title: client.name},
		&mcp.ClientOptions{
			ProgressNotificationHandler: func(_ context.Context, request *mcp.ProgressNotificationClientRequest) {
				heard(request.Params.ProgressToken)
			},
			LoggingMessageHandler: func(_ context.Context, request *mcp.LoggingMessageRequest) {
				heard(request.Params.Data)
			},
		})
	session, err := sdk.Connect(context.Background(), transport, withSessions())
	if err != nil {
		say(object{"client": client.name, "event": "refused", "error": err.Error()})
		return
	}
	client.mutex.Lock()
	client.session = session
	client.mutex.Unlock()
	say(object{"client": client.name, "event": "opened"})
	err = session.Wait()
	say(object{"client": client.name, "event": "ended", "error": fmt.Sprint(err)})
}

// withSessions asks for the last protocol that has sessions. go-sdk 1.6.1 knows no later one, and no such option.
func withSessions() *mcp.ClientSessionOptions {
	options := &mcp.ClientSessionOptions{}
	if version := reflect.ValueOf(options).Elem().FieldByName("ProtocolVersion"); version.IsValid() {
		version.SetString("2025-11-25")
	}
	return options
}

func (client *client) get() *mcp.ClientSession {
	client.mutex.Lock()
	defer client.mutex.Unlock()
	return client.session
}

func (client *client) close() {
	if session := client.get(); session != nil {
		_ = session.Close()
	}
}

func (client *client) answer(what command) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(what.Limit*float64(time.Second)))
	defer cancel()
	outcome, text := "error", "no session"
	if session := client.get(); session != nil {
		var err error
		if outcome, text, err = ask(ctx, session, what); errors.Is(err, context.DeadlineExceeded) {
			outcome, text = "unanswered", err.Error()
		} else if err != nil {
			outcome, text = "error", err.Error()
		}
	}
	say(object{
		"client": client.name, "event": "answer", "number": what.Number, "outcome": outcome, "text": text,
	})
}

func ask(ctx context.Context, session *mcp.ClientSession, what command) (string, string, error) {
	if what.Do == "list" {
		found, err := session.ListTools(ctx, nil)
		if err != nil {
			return "", "", err
		}
		var names []string
		for _, tool := range found.Tools {
			names = append(names, tool.Name)
		}
		return "result", strings.Join(names, " "), nil
	}
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "count", Arguments: what.order})
	if err != nil {
		return "", "", err
	}
	var text string
	if len(result.Content) > 0 {
		if content, fits := result.Content[0].(*mcp.TextContent); fits {
			text = content.Text
		}
	}
	if result.IsError {
		return "told", text, nil
	}
	return "result", text, nil
}
