// Go: goroutines, processes, signals, a server on a local socket, files.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	var group sync.WaitGroup
	sums := make(chan int, 1)
	sums <- 0
	for n := 0; n < 1000; n++ {
		group.Add(1)
		go func(n int) { defer group.Done(); sums <- <-sums + n }(n)
	}
	group.Wait()
	fmt.Println(<-sums)

	command := exec.Command("tr", "a-z", "A-Z")
	command.Stdin = bytes.NewBufferString("executed\n")
	output, err := command.Output()
	fmt.Print(string(output), err, "\n")
	fmt.Println(exec.Command("sh", "-c", "exit 3").Run())

	listener, err := net.Listen("unix", "/tmp/go")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.URL.Path) }))
	dial := func(string, string) (net.Conn, error) { return net.Dial("unix", "/tmp/go") }
	response, err := (&http.Client{Transport: &http.Transport{Dial: dial}}).Get("http://local/there")
	if err != nil {
		panic(err)
	}
	body, _ := io.ReadAll(response.Body)
	fmt.Println(response.StatusCode, string(body))

	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	select {
	case name := <-heard:
		fmt.Println(name)
	case <-time.After(5 * time.Second):
		fmt.Println("nothing heard")
	}
	file, _ := os.CreateTemp("", "x")
	syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	packed := gzip.NewWriter(file)
	io.CopyN(packed, rand.Reader, 99999)
	packed.Close()
	fmt.Println(file.Sync(), os.Rename(file.Name(), "/tmp/moved"))
	_, err = net.Dial("tcp", "127.0.0.1:80")
	fmt.Println(err)
}
