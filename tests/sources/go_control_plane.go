// A control plane made of go-control-plane, whose sessions with the xDS source are recorded (record_go_control_plane.py).
// It prints where it listens, then takes what there is as a line of JSON each and prints a line when that is set.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

type state struct {
	Version  string
	Clusters map[string]string   // name to EDS name
	Hosts    map[string][]string // by EDS name
}

func main() {
	ctx := context.Background()
	snapshots := cache.NewSnapshotCache(false, cache.IDHash{}, nil)
	grpcServer := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, server.NewServer(ctx, snapshots, nil))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().String())
	go grpcServer.Serve(listener)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 1<<20)
	for in.Scan() {
		var s state
		if err := json.Unmarshal(in.Bytes(), &s); err != nil {
			log.Fatal(err)
		}
		var clusters, assignments []types.Resource
		for name, eds := range s.Clusters {
			clusters = append(clusters, &cluster.Cluster{
				Name:                 name,
				ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
				EdsClusterConfig: &cluster.Cluster_EdsClusterConfig{
					ServiceName: eds,
					EdsConfig:   &core.ConfigSource{ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}}},
				},
			})
		}
		for name, hosts := range s.Hosts {
			var group endpoint.LocalityLbEndpoints
			group.Locality = &core.Locality{Region: "eu"}
			for _, host := range hosts {
				group.LbEndpoints = append(group.LbEndpoints, &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{
					Endpoint: &endpoint.Endpoint{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
						Address: host, PortSpecifier: &core.SocketAddress_PortValue{PortValue: 80}}}}}}})
			}
			assignments = append(assignments, &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{&group}})
		}
		snapshot, err := cache.NewSnapshot(s.Version, map[resource.Type][]types.Resource{
			resource.ClusterType: clusters, resource.EndpointType: assignments})
		if err != nil {
			log.Fatal(err)
		}
		if err := snapshots.SetSnapshot(ctx, "lbcore", snapshot); err != nil {
			log.Fatal(err)
		}
		fmt.Println("set", s.Version)
	}
}
