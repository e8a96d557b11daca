/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps. All objects share them: libbpf pins each by its name in the orchestrator's bpffs and
 * finds it there again.
 */
#ifndef AETHERLESS_MAPS_H
#define AETHERLESS_MAPS_H

#include "structs.h"

/* Host link -> sandbox. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct endpoint);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} endpoints SEC(".maps");

/* Slot -> host link, 0 for none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} links SEC(".maps");

/* Slot -> what the sandbox publishes; its init writes, too. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct endpoint_state);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} endpoint_state SEC(".maps");

/* Trigger port -> endpoint. A port in it is reserved on the host. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ROUTES);
	__type(key, __u16);
	__type(value, struct route);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} routes SEC(".maps");

/* Network namespace's cookie -> sandbox. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u64);
	__type(value, struct sandbox);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sandboxes SEC(".maps");

/* The host's IPv4 addresses beside 127.0.0.0/8. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_HOST_ADDRESSES);
	__type(key, __be32);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} host_ipv4 SEC(".maps");

/* The host's IPv6 addresses beside ::1. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_HOST_ADDRESSES);
	__uint(key_size, 16);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} host_ipv6 SEC(".maps");

/* Route -> counters. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_ROUTES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u16);
	__type(value, struct counters);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} route_counters SEC(".maps");

/* Route -> first-byte times. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ROUTES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u16);
	__type(value, struct histogram);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} route_histograms SEC(".maps");

/* The latest connections; the oldest give way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} flows SEC(".maps");

/* Socket -> the address that its owner connected to. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer_name);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} peer_names SEC(".maps");

/* Records of answered wakes. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, TRAFFIC_BYTES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} traffic SEC(".maps");

#endif
