// The loop of the benchmark `delivery` in Go: net/http with as many idle connections as workers.
//
// usage: delivery URL WORKERS MILLISECONDS THREADS
//
// It prints how many messages were delivered, in how many seconds, and how many seconds of CPU the
// process took meanwhile.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	body   = bytes.Repeat([]byte("x"), 256)
	secret = bytes.Repeat([]byte("s"), 24)
	next   atomic.Uint64
)

func main() {
	// As many threads run Go code as send in the other contenders.
	runtime.GOMAXPROCS(number(os.Args[4]))
	url := os.Args[1]
	workers := number(os.Args[2])
	client := &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			MaxIdleConns:        workers,
			MaxIdleConnsPerHost: workers,
			DisableCompression:  true,
		},
	}
	// The connections are made before the clock starts.
	run(client, url, workers, 50*time.Millisecond)
	start, cpu := time.Now(), cpuSeconds()
	count := run(client, url, workers, time.Duration(number(os.Args[3]))*time.Millisecond)
	fmt.Println(count, time.Since(start).Seconds(), cpuSeconds()-cpu)
}

func run(client *http.Client, url string, workers int, duration time.Duration) int {
	end := time.Now().Add(duration)
	var count atomic.Int64
	var loops sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		loops.Add(1)
		go func() {
			defer loops.Done()
			for time.Now().Before(end) {
				post(client, url)
				count.Add(1)
			}
		}()
	}
	loops.Wait()
	return int(count.Load())
}

func post(client *http.Client, url string) {
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	check(err)
	id := "msg_" + strconv.FormatUint(next.Add(1), 10)
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	io.WriteString(mac, id+"."+timestamp+".")
	mac.Write(body)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Webhook-Id", id)
	request.Header.Set("Webhook-Timestamp", timestamp)
	request.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	response, err := client.Do(request)
	check(err)
	_, err = io.Copy(io.Discard, response.Body)
	check(err)
	check(response.Body.Close())
	if response.StatusCode/100 != 2 {
		panic(response.Status)
	}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	seconds := func(time syscall.Timeval) float64 { return float64(time.Sec) + float64(time.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
