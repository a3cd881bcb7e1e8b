// Go's http.Client against a duplex route: `main talk|echo|upload|expect URL [bytes]`. Prints what it receives.
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"time"
)

func post(url string, body io.Reader) *http.Request {
	request, err := http.NewRequest("POST", url, body)
	if err != nil {
		panic(err)
	}
	return request
}

// Sends each word only after the answer to the previous one has arrived. Do returns when it has the head of the response,
// while the transport still sends the body.
func talk(url string) error {
	body, up := io.Pipe()
	request := post(url, body)
	request.Trailer = http.Header{"X-Words": nil}
	go io.WriteString(up, "one")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	buffer := make([]byte, 100)
	for _, next := range []string{"two", "three", ""} {
		n, err := response.Body.Read(buffer)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", buffer[:n])
		if next != "" {
			io.WriteString(up, next)
		}
	}
	request.Trailer.Set("X-Words", "3")
	up.Close()
	rest, err := io.ReadAll(response.Body)
	fmt.Printf("end %d %q %v\n", len(rest), response.Trailer, err)
	return err
}

// Sends random bytes and compares them with what comes back meanwhile.
func echo(url string, size int64) error {
	sent, received := sha256.New(), sha256.New()
	body := io.TeeReader(io.LimitReader(rand.New(rand.NewSource(1)), size), sent)
	response, err := http.DefaultClient.Do(post(url, body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	n, err := io.Copy(received, response.Body)
	if err != nil {
		return err
	}
	fmt.Println(n, bytes.Equal(sent.Sum(nil), received.Sum(nil)))
	return nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// An upload that the server answers early. Prints the answer, and whether all or nothing of the upload was sent.
func upload(url string, size int64, expect bool) error {
	var sent counter
	request := post(url, io.TeeReader(io.LimitReader(rand.New(rand.NewSource(1)), size), &sent))
	request.ContentLength = size
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
	if expect {
		request.Header.Set("Expect", "100-continue")
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	fmt.Println(response.StatusCode, len(text) > 0, sent.n == size, sent.n == 0)
	return err
}

func main() {
	var size int64
	if len(os.Args) > 3 {
		size, _ = strconv.ParseInt(os.Args[3], 10, 64)
	}
	err := errors.New("unknown mode")
	switch url := os.Args[2]; os.Args[1] {
	case "talk":
		err = talk(url)
	case "echo":
		err = echo(url, size)
	case "upload":
		err = upload(url, size, false)
	case "expect":
		err = upload(url, size, true)
	}
	if err != nil {
		fmt.Println("error:", err)
	}
}
