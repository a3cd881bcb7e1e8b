// Go's net/http as an oracle. It reads messages from stdin and writes verdicts to stdout, each after its length in four
// bytes. The first byte of a message says how it is read: 's' by a real http.Server, on a new connection; 'r' by ReadRequest; 'G',
// 'H' and 'C' by ReadResponse, as a response to GET, HEAD and CONNECT.

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

type verdict struct {
	Outcome  string            `json:"outcome"`
	Reason   string            `json:"reason"`
	Content  string            `json:"content"`
	Trailers map[string]string `json:"trailers"`
	End      int               `json:"end"`
	Head     *head             `json:"head,omitempty"`
}

type head struct {
	Start  string            `json:"start"`
	Host   *string           `json:"host,omitempty"`
	Fields map[string]string `json:"fields"`
}

// conn is a connection whose client sends one message and then ends its side.
type conn struct {
	message *bytes.Reader
	answer  bytes.Buffer
	once    sync.Once
	closed  chan struct{}
	verdict *verdict
}

func (c *conn) Read(p []byte) (int, error)       { return c.message.Read(p) }
func (c *conn) Write(p []byte) (int, error)      { return c.answer.Write(p) }
func (c *conn) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *conn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *conn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

type listener struct{ conns chan net.Conn }

func (l *listener) Accept() (net.Conn, error) { return <-l.conns, nil }
func (l *listener) Close() error              { return nil }
func (l *listener) Addr() net.Addr            { return &net.TCPAddr{} }

// latin1 turns each byte into a character.
func latin1(content []byte) string {
	runes := make([]rune, len(content))
	for i, b := range content {
		runes[i] = rune(b)
	}
	return string(runes)
}

func failed(err error) *verdict {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &verdict{Outcome: "incomplete", Reason: err.Error(), End: -1}
	}
	return &verdict{Outcome: "refused", Reason: err.Error(), End: -1}
}

// handle reads a request, then hijacks its connection to find out how many bytes are left on it.
func handle(w http.ResponseWriter, r *http.Request) {
	content, readError := io.ReadAll(r.Body)
	hijacked, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		log.Fatal(err)
	}
	defer hijacked.Close()
	c := hijacked.(*conn)
	if readError != nil {
		c.verdict = failed(readError)
		return
	}
	rest := c.message.Len() + buffered.Reader.Buffered()
	c.verdict = &verdict{"accepted", "", latin1(content), joined(r.Trailer), int(c.message.Size()) - rest, nil}
}

// joined gives fields by their lower-case names, their values joined.
func joined(header http.Header) map[string]string {
	fields := map[string]string{}
	for name, values := range header {
		if len(values) > 0 {
			fields[strings.ToLower(name)] = latin1([]byte(strings.Join(values, ", ")))
		}
	}
	return fields
}

// serve lets a server read a message.
func serve(l *listener, message []byte) *verdict {
	c := &conn{message: bytes.NewReader(message), closed: make(chan struct{})}
	l.conns <- c
	<-c.closed
	if c.verdict != nil {
		return c.verdict
	}
	line, _, _ := strings.Cut(c.answer.String(), "\r\n")
	if line == "" {
		return &verdict{Outcome: "incomplete", Reason: "no answer", End: -1}
	}
	return &verdict{Outcome: "refused", Reason: line, End: -1}
}

func readRequest(message []byte) *verdict {
	source := bytes.NewReader(message)
	reader := bufio.NewReader(source)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return failed(err)
	}
	host := latin1([]byte(request.Host))
	start := request.Method + " " + request.RequestURI + " " + request.Proto
	content, err := io.ReadAll(request.Body)
	if err != nil {
		return failed(err)
	}
	end := len(message) - source.Len() - reader.Buffered()
	return &verdict{"accepted", "", latin1(content), joined(request.Trailer), end, &head{latin1([]byte(start)), &host, joined(request.Header)}}
}

func readResponse(method string, message []byte) *verdict {
	source := bytes.NewReader(message)
	reader := bufio.NewReader(source)
	start := ""
	for {
		response, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			return failed(err)
		}
		start += response.Status + "\n"
		if response.StatusCode < 200 && response.StatusCode != 101 {
			continue
		}
		isTunnel := response.StatusCode == 101 || (method == "CONNECT" && response.StatusCode < 300)
		content := []byte{}
		if !isTunnel {
			content, err = io.ReadAll(response.Body)
			if err != nil {
				return failed(err)
			}
		}
		end := len(message) - source.Len() - reader.Buffered()
		return &verdict{"accepted", "", latin1(content), joined(response.Trailer), end, &head{latin1([]byte(start)), nil, joined(response.Header)}}
	}
}

func read(l *listener, kind byte, message []byte) *verdict {
	switch kind {
	case 's':
		return serve(l, message)
	case 'r':
		return readRequest(message)
	case 'H':
		return readResponse("HEAD", message)
	case 'C':
		return readResponse("CONNECT", message)
	default:
		return readResponse("GET", message)
	}
}

func main() {
	l := &listener{make(chan net.Conn)}
	server := &http.Server{Handler: http.HandlerFunc(handle), ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(l)
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriterSize(os.Stdout, 1<<20)
	for {
		var size uint32
		if binary.Read(in, binary.BigEndian, &size) != nil {
			return
		}
		message := make([]byte, size)
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		text, _ := json.Marshal(read(l, message[0], message[1:]))
		binary.Write(out, binary.BigEndian, uint32(len(text)))
		out.Write(text)
		if in.Buffered() == 0 {
			out.Flush()
		}
	}
}
