// Go's net/http. The argument chooses one of three echo handlers: "tutorial" and "best" use http.Hijacker, "full-duplex"
// uses http.ResponseController.EnableFullDuplex. All serve items, too. With "origin" it is the server behind the proxies,
// which must cost as little as possible.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"runtime/debug"
	"strconv"
)

const head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

// What one writes after reading the documentation of http.Hijacker.
func tutorial(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	rw.WriteString(head)
	in := httputil.NewChunkedReader(rw)
	out := httputil.NewChunkedWriter(rw)
	buffer := make([]byte, 1024)
	for {
		n, err := in.Read(buffer)
		if n > 0 {
			out.Write(buffer[:n])
			if rw.Flush() != nil {
				return
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return
		}
	}
	out.Close()
	rw.WriteString("\r\n")
	rw.Flush()
}

// Large buffers, and hand-made chunks: chunk-size, content and CRLF go out in one write.
func best(w http.ResponseWriter, r *http.Request) {
	const size = 32 * 1024
	const prefixSize = 16 // space for the chunk-size line in front of the content
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(head)); err != nil {
		return
	}
	in := httputil.NewChunkedReader(bufio.NewReaderSize(afterHead(conn, rw.Reader), size))
	buffer := make([]byte, prefixSize+size+2)
	for {
		n, err := in.Read(buffer[prefixSize : prefixSize+size])
		if n > 0 {
			prefix := strconv.AppendInt(make([]byte, 0, prefixSize), int64(n), 16)
			prefix = append(prefix, '\r', '\n')
			start := prefixSize - len(prefix)
			copy(buffer[start:], prefix)
			copy(buffer[prefixSize+n:], "\r\n")
			if _, err := conn.Write(buffer[start : prefixSize+n+2]); err != nil {
				return
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return
		}
	}
	conn.Write([]byte("0\r\n\r\n"))
}

// Reads the bytes that the server has already buffered, then the connection itself.
func afterHead(conn net.Conn, reader *bufio.Reader) io.Reader {
	buffered, _ := reader.Peek(reader.Buffered())
	return io.MultiReader(bytes.NewReader(buffered), conn)
}

func fullDuplex(w http.ResponseWriter, r *http.Request) {
	controller := http.NewResponseController(w)
	if controller.EnableFullDuplex() != nil {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	buffer := make([]byte, 32*1024)
	for {
		n, err := r.Body.Read(buffer)
		if n > 0 {
			w.Write(buffer[:n])
			if controller.Flush() != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Reads an upload, and answers with its length.
func up(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	const size = 256 * 1024
	in := httputil.NewChunkedReader(bufio.NewReaderSize(afterHead(conn, rw.Reader), size))
	buffer := make([]byte, size)
	length := 0
	for {
		n, err := in.Read(buffer)
		length += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return
		}
	}
	digits := strconv.Itoa(length)
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(digits), digits)
}

const period = 64 * 1024

// The content of all downloads: see client/pattern.ts.
var pattern = func() []byte {
	bytes := make([]byte, period)
	state := uint32(1)
	for i := range bytes {
		state = state*1103515245 + 12345
		bytes[i] = byte('a' + (state>>16)%26)
	}
	return bytes
}()

// Sends a download in chunks that were made in advance, many in one write.
func down(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	length, _ := strconv.Atoi(query.Get("length"))
	size, _ := strconv.Atoi(query.Get("size"))
	if size < 1 || period%size != 0 {
		return
	}
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	var chunks bytes.Buffer
	for at := 0; at < period; at += size {
		fmt.Fprintf(&chunks, "%x\r\n%s\r\n", size, pattern[at:at+size])
	}
	encoded := bytes.Repeat(chunks.Bytes(), 4)
	if _, err := conn.Write([]byte(head)); err != nil {
		return
	}
	for ; length > 0; length -= 4 * period {
		if length < 4*period {
			encoded = encoded[:len(encoded)/4*(length/period)]
		}
		if _, err := conn.Write(encoded); err != nil {
			return
		}
	}
	conn.Write([]byte("0\r\n\r\n"))
}

// Answers a short request with its content.
func short(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	w.Write(content)
}

type row struct {
	Id     int     `json:"id"`
	Name   string  `json:"name"`
	Email  string  `json:"email"`
	Amount float64 `json:"amount"`
	Active bool    `json:"active"`
}

type result struct {
	Id     int     `json:"id"`
	Status string  `json:"status"`
	Total  float64 `json:"total"`
}

// Sends what was written, before it waits for more to read.
type flushingReader struct {
	io.Reader
	*http.ResponseController
}

func (r flushingReader) Read(p []byte) (int, error) {
	if err := r.Flush(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func items(w http.ResponseWriter, r *http.Request) {
	controller := http.NewResponseController(w)
	if controller.EnableFullDuplex() != nil {
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	decoder := json.NewDecoder(flushingReader{r.Body, controller})
	encoder := json.NewEncoder(w)
	for {
		var row row
		if decoder.Decode(&row) != nil {
			return
		}
		if encoder.Encode(result{row.Id, "accepted", row.Amount + 1}) != nil {
			return
		}
	}
}

func main() {
	handlers := map[string]http.HandlerFunc{"tutorial": tutorial, "best": best, "full-duplex": fullDuplex, "origin": fullDuplex}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("{\"port\":%d}\n", listener.Addr().(*net.TCPAddr).Port)
	go serveParent()
	http.HandleFunc("/echo", handlers[os.Args[1]])
	http.HandleFunc("/rows", items)
	http.HandleFunc("/up", up)
	http.HandleFunc("/down", down)
	http.HandleFunc("/short", short)
	panic(http.Serve(listener, nil))
}

// Collects garbage when the parent asks for it, and exits with the parent.
func serveParent() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		debug.FreeOSMemory()
		fmt.Println("{\"collected\":true}")
	}
	os.Exit(0)
}
