// The loop of the benchmark `delivery` in Go: net/http with as many idle connections as workers.
//
// usage: delivery URL WORKERS MILLISECONDS THREADS
//
// It prints how many messages were delivered, in how many seconds, how many seconds of CPU the process
// took meanwhile, and how many seconds one request in a hundred exceeded.
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
	"sort"
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
	latencies := run(client, url, workers, time.Duration(number(os.Args[3]))*time.Millisecond)
	elapsed, used := time.Since(start).Seconds(), cpuSeconds()-cpu
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	fmt.Println(len(latencies), elapsed, used, latencies[len(latencies)*99/100].Seconds())
}

func run(client *http.Client, url string, workers int, duration time.Duration) []time.Duration {
	end := time.Now().Add(duration)
	each := make([][]time.Duration, workers)
	var loops sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		loops.Add(1)
		go func(latencies *[]time.Duration) {
			defer loops.Done()
			for {
				began := time.Now()
				if !began.Before(end) {
					return
				}
				post(client, url)
				*latencies = append(*latencies, time.Since(began))
			}
		}(&each[worker])
	}
	loops.Wait()
	var all []time.Duration
	for _, latencies := range each {
		all = append(all, latencies...)
	}
	return all
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
