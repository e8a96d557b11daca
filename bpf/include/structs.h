/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values and keys of the maps. aetherless_netplane.layout has the same structs; a test compares
 * both by the objects' BTF. Addresses are in network byte order, ports in host byte order.
 */
#ifndef AETHERLESS_STRUCTS_H
#define AETHERLESS_STRUCTS_H

#include "consts.h"

/* What is constant for one orchestrator; read-only data, set before the programs are loaded. */
struct settings {
	__u64 host_cookie;    /* the host's network namespace */
	__be32 outer_ipv4;    /* the first outer address of our /22 */
	__be32 outer_ipv6[4]; /* the first outer address of our /112 */
	__u32 reserved;
};

/* The sandbox behind a host link; key: the link's index. */
struct endpoint {
	__be32 outer_ipv4;
	__be32 outer_ipv6[4];
	__u32 slot;
	__u16 trigger_port; /* 0 for none */
	__u16 route_port;   /* the route its traffic counts for; 0 for none */
};

/* What a sandbox publishes of itself; ARCHITECTURE.md section 5. Key: the slot. */
struct endpoint_state {
	__u32 state;
	__u32 generation;
	__u64 first_syn_ns;
	__u64 first_answer_ns;
	__u64 reserved;
};

/* Where the clients of a trigger port are led; key: the port. */
struct route {
	__be32 outer_ipv4;
	__be32 outer_ipv6[4];
	__u32 flags;
};

/* A sandbox, as the hooks on sockets meet it; key: its network namespace's cookie. */
struct sandbox {
	__u32 trigger_port; /* 0 for none */
	__u32 flags;
};

/* Counters of one route, on one CPU; key: the port. */
struct counters {
	__u64 connections;
	__u64 requests;
	__u64 resets;
	__u64 received_bytes;
	__u64 sent_bytes;
	__u64 answered_wakes;
};

/* First-byte times of one route; key: the port. */
struct histogram {
	__u64 buckets[HISTOGRAM_BUCKETS];
};

/* One connection, seen from the host link. */
struct flow_key {
	__u32 ifindex;
	__be32 client[4]; /* an IPv4 address stands in the first word */
	__u16 client_port;
	__u16 family;
};

/* How far a connection got; what each side sent is counted up to its next sequence number. */
struct flow {
	__u32 syn_sequence;
	__u32 next_to_function;
	__u32 next_to_client;
	__u8 turn;
	__u8 seen; /* FLOW_SEEN_*: which of the numbers are known */
	__u8 reset;
	__u8 reserved;
};

/* The address that a client meant, of a socket whose destination was rewritten. */
struct peer_name {
	__be32 address[4]; /* an IPv4 address stands in the first word */
	__u32 family;
};

/* The record of a wake that was answered. */
struct first_answer {
	__u64 first_syn_ns;
	__u64 first_answer_ns;
	__u32 slot;
	__u32 generation;
	__u32 route_port;
	__u32 reserved;
};

#endif
