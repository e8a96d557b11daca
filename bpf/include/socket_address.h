/* SPDX-License-Identifier: Apache-2.0 */
/* What the hooks on connect, bind and getpeername share: who asks, and what an address means. */
#ifndef AETHERLESS_SOCKET_ADDRESS_H
#define AETHERLESS_SOCKET_ADDRESS_H

#include "maps.h"

const volatile struct settings settings SEC(".rodata.settings");

/* Tell whether an IPv4 address means the caller's own loopback: 127.0.0.0/8 or 0.0.0.0. */
static __always_inline bool is_loopback4(__be32 address)
{
	return (address & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) || address == 0;
}

/* Tell whether an IPv6 address means the caller's own loopback: ::1 or ::. */
static __always_inline bool is_loopback6(const __be32 *address)
{
	return !(address[0] | address[1] | address[2]) && (bpf_ntohl(address[3]) | 1) == 1;
}

/* Tell whether an IPv6 address is an IPv4 one in disguise: ::ffff:a.b.c.d. */
static __always_inline bool is_mapped(const __be32 *address)
{
	return !(address[0] | address[1]) && address[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_host4(__be32 address)
{
	return bpf_map_lookup_elem(&host_ipv4, &address) != NULL;
}

static __always_inline bool is_host6(const __be32 *address)
{
	return bpf_map_lookup_elem(&host_ipv6, address) != NULL;
}

/* Copy the address of a request; the context allows only whole-word reads at fixed places. */
static __always_inline void copy_ip6(const struct bpf_sock_addr *ctx, __be32 *address)
{
	address[0] = ctx->user_ip6[0];
	address[1] = ctx->user_ip6[1];
	address[2] = ctx->user_ip6[2];
	address[3] = ctx->user_ip6[3];
}

static __always_inline void set_ip6(struct bpf_sock_addr *ctx, const __be32 *address)
{
	ctx->user_ip6[0] = address[0];
	ctx->user_ip6[1] = address[1];
	ctx->user_ip6[2] = address[2];
	ctx->user_ip6[3] = address[3];
}

static __always_inline void inner_ipv6(__be32 *address)
{
	address[0] = bpf_htonl(INNER_IPV6_0);
	address[1] = bpf_htonl(INNER_IPV6_1);
	address[2] = bpf_htonl(INNER_IPV6_2);
	address[3] = bpf_htonl(INNER_IPV6_3);
}

static __always_inline bool is_inner_ipv6(const __be32 *address)
{
	return address[0] == bpf_htonl(INNER_IPV6_0) && address[1] == bpf_htonl(INNER_IPV6_1) &&
	       address[2] == bpf_htonl(INNER_IPV6_2) && address[3] == bpf_htonl(INNER_IPV6_3);
}

#endif
