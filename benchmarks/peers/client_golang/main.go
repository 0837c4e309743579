// A client_golang server with the families that benchmarks/exposition.py compares: one counter, two histograms.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	tenants, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	labels := []string{"tenant", "workflow", "method"}
	registry := prometheus.NewRegistry()
	judgments := prometheus.NewCounterVec(
		prometheus.CounterOpts{Name: "bench_judgments_total", Help: "Judgments made."}, append(labels, "status"))
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "bench_duration_seconds", Help: "Time one judgment took.",
		Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}}, labels)
	confidence := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "bench_confidence_ratio", Help: "How sure the judge was.",
		Buckets: []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1}}, labels)
	registry.MustRegister(judgments, duration, confidence)

	change := func() {
		number := 0
		for tenant := 0; tenant < tenants; tenant++ {
			for workflow := 0; workflow < 10; workflow++ {
				for _, method := range []string{"rule", "llm", "hybrid"} {
					names := []string{fmt.Sprintf("tenant-%04d", tenant), fmt.Sprintf("workflow-%d", workflow), method}
					for _, status := range []string{"success", "error", "timeout"} {
						judgments.WithLabelValues(names[0], names[1], names[2], status).Inc()
						duration.WithLabelValues(names...).Observe(float64(number%9973) / 1000)
						confidence.WithLabelValues(names...).Observe(float64(number%97) / 97)
					}
					number++
				}
			}
		}
	}
	change()
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	http.HandleFunc("/change", func(http.ResponseWriter, *http.Request) { change() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if err := http.Serve(listener, nil); err != nil {
		panic(err)
	}
}
