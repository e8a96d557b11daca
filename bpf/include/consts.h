/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers and addresses that the programs, the netplane and the sandbox init agree on. */
#ifndef AETHERLESS_CONSTS_H
#define AETHERLESS_CONSTS_H

/* Sizes of maps. A slot is the last 10 bits of an outer address: an orchestrator owns a /22. */
#define MAX_SLOTS 1024
#define MAX_ROUTES 1024
#define MAX_HOST_ADDRESSES 1024
#define MAX_FLOWS 32768
#define TRAFFIC_BYTES (256 * 1024)
#define SLOT_MASK (MAX_SLOTS - 1)

/* The host's own slot: the source address of its connections to sandboxes. */
#define HOST_SLOT 1

/* Addresses inside, the same in every sandbox (host byte order). */
#define INNER_IPV4 0xc612ff01u /* 198.18.255.1 */
#define INNER_IPV6_0 0xfd0000aeu
#define INNER_IPV6_1 0xffff0000u /* fd00:ae:ffff::1 */
#define INNER_IPV6_2 0u
#define INNER_IPV6_3 1u

/* enum EndpointState of the contract. */
#define STATE_ARMED 1
#define STATE_RESTORING 2

/* struct route, flags */
#define ROUTE_IPV4 1u  /* the function listens on IPv4 */
#define ROUTE_IPV6 2u  /* the function listens on IPv6 */
#define ROUTE_LIVE 4u  /* an endpoint answers */
#define ROUTE_CLAIM 8u /* the port is being reserved; its clients are left alone yet */

/* struct sandbox, flags */
#define SANDBOX_LOOPBACK6_MOVED 1u /* the listener on ::1 listens on the inner address instead */

/* struct flow, seen */
#define FLOW_SEEN_CLIENT 1
#define FLOW_SEEN_FUNCTION 2

/* How often a lost race for a sequence number is run again. */
#define NEXT_TRIES 4

/* struct flow, who sent payload last */
#define TURN_NONE 0
#define TURN_CLIENT 1
#define TURN_FUNCTION 2

/*
 * The log-linear histogram of first-byte times, in units of 1024 ns: values below 32 have a bucket
 * each, then every power of two has 32; 768 buckets reach 275 s, each no wider than 1/32 of its
 * value.
 */
#define HISTOGRAM_UNIT_SHIFT 10
#define HISTOGRAM_SUB_SHIFT 5
#define HISTOGRAM_SUB (1 << HISTOGRAM_SUB_SHIFT)
#define HISTOGRAM_BUCKETS 768

/* What the kernel's headers have as macros, which BTF does not carry. */
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_HLEN 14
#define AF_INET 2
#define AF_INET6 10
#define TC_ACT_UNSPEC (-1)
#define TC_ACT_SHOT 2
#define EADDRINUSE 98
#define ENETUNREACH 101
#define ECONNREFUSED 111
#define IP_FRAGMENT_OFFSET 0x1fff
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMPV6_ERROR_LIMIT 128 /* types below it are errors, which quote a packet */
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define IPPROTO_ICMPV6 58
#define NEXTHDR_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_DEST 60

#endif
