// SPDX-License-Identifier: Apache-2.0
/*
 * Leads a TCP connection that means a trigger port of this host to the port's endpoint, and keeps
 * the address that the client meant for getpeername(2). Attached to the root of cgroup v2; touches
 * only sockets of the host's network namespace and of our sandboxes.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>
#include "include/socket_address.h"

/* What a hook on a socket's address returns. */
#define REFUSE 0
#define ALLOW 1

/* Fail the system call with an error of our choice instead of EPERM. */
static __always_inline int fail_with(int error)
{
	bpf_set_retval(-error);
	return REFUSE;
}

/* Forget what an earlier connect of the same socket meant. */
static __always_inline int untouched(struct bpf_sock_addr *ctx)
{
	if (ctx->sk)
		bpf_sk_storage_delete(&peer_names, ctx->sk);
	return ALLOW;
}

/* Remember what the client meant. False without memory: the connection fails then. */
static __always_inline bool remember(struct bpf_sock_addr *ctx, __u32 family, const __be32 *meant)
{
	struct peer_name *name;

	if (!ctx->sk)
		return false;
	name = bpf_sk_storage_get(&peer_names, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!name)
		return false;
	name->family = family;
	name->address[0] = meant[0];
	name->address[1] = meant[1];
	name->address[2] = meant[2];
	name->address[3] = meant[3];
	return true;
}

/* Find the route that a connection from this namespace to this port may take, if any. */
static __always_inline struct route *route_of(struct bpf_sock_addr *ctx, __u64 cookie,
					      struct sandbox *caller)
{
	__u16 port = bpf_ntohs(ctx->user_port);
	struct route *route;

	if (ctx->protocol != IPPROTO_TCP)
		return NULL;
	if (cookie != settings.host_cookie && !caller)
		return NULL;
	route = bpf_map_lookup_elem(&routes, &port);
	if (route && route->flags & ROUTE_CLAIM)
		return NULL;
	return route;
}

/* Tell whether a sandbox means its own listener. */
static __always_inline bool own_port(struct bpf_sock_addr *ctx, const struct sandbox *caller)
{
	return caller && caller->trigger_port == bpf_ntohs(ctx->user_port);
}

/* Tell whether the socket refuses IPv4 (IPV6_V6ONLY). */
static __always_inline bool only_ipv6(struct bpf_sock_addr *ctx)
{
	struct tcp6_sock *socket = bpf_skc_to_tcp6_sock(ctx->sk);

	if (!socket)
		return false;
	return BPF_CORE_READ_BITFIELD(&socket->tcp.inet_conn.icsk_inet.sk.__sk_common,
				      skc_ipv6only);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct sandbox *caller = bpf_map_lookup_elem(&sandboxes, &cookie);
	struct route *route = route_of(ctx, cookie, caller);
	__be32 meant[4] = {ctx->user_ip4};

	if (ctx->protocol != IPPROTO_TCP)
		return ALLOW;
	if (!route)
		return untouched(ctx);
	if (is_loopback4(meant[0]) ? own_port(ctx, caller) : !is_host4(meant[0]))
		return untouched(ctx);
	if (!(route->flags & ROUTE_LIVE) || !(route->flags & ROUTE_IPV4))
		return fail_with(ECONNREFUSED);
	if (!remember(ctx, AF_INET, meant))
		return REFUSE;
	ctx->user_ip4 = route->outer_ipv4;
	return ALLOW;
}

/* Lead an IPv6 socket to an IPv4 address. */
static __always_inline int use_ipv4(struct bpf_sock_addr *ctx, const struct route *route,
				    const __be32 *meant)
{
	__be32 outer[4] = {0, 0, bpf_htonl(0xffff), route->outer_ipv4};

	if (!(route->flags & ROUTE_IPV4) || only_ipv6(ctx))
		return fail_with(ECONNREFUSED);
	if (!remember(ctx, AF_INET6, meant))
		return REFUSE;
	set_ip6(ctx, outer);
	return ALLOW;
}

static __always_inline int use_ipv6(struct bpf_sock_addr *ctx, const struct route *route,
				    const __be32 *meant)
{
	__be32 outer[4] = {route->outer_ipv6[0], route->outer_ipv6[1], route->outer_ipv6[2],
			   route->outer_ipv6[3]};

	if (!remember(ctx, AF_INET6, meant))
		return REFUSE;
	set_ip6(ctx, outer);
	return ALLOW;
}

/* A function's own listener on ::1 may have been moved to the inner address: follow it. */
static __always_inline int own_listener6(struct bpf_sock_addr *ctx, const struct sandbox *caller,
					 const __be32 *meant)
{
	__be32 inner[4];

	if (!(caller->flags & SANDBOX_LOOPBACK6_MOVED) || is_mapped(meant))
		return untouched(ctx);
	if (!remember(ctx, AF_INET6, meant))
		return REFUSE;
	inner_ipv6(inner);
	set_ip6(ctx, inner);
	return ALLOW;
}

/* There is no way out by IPv6: say so at once, where the packets would only vanish. */
static __always_inline bool leaves_by_ipv6(const struct sandbox *caller, const __be32 *meant)
{
	if (!caller || is_mapped(meant) || is_loopback6(meant) || is_inner_ipv6(meant))
		return false;
	if ((bpf_ntohl(meant[0]) >> 22) == (0xfe80u << 16) >> 22)
		return false; /* link-local */
	return meant[0] != settings.outer_ipv6[0] || meant[1] != settings.outer_ipv6[1] ||
	       meant[2] != settings.outer_ipv6[2];
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct sandbox *caller = bpf_map_lookup_elem(&sandboxes, &cookie);
	struct route *route = route_of(ctx, cookie, caller);
	bool mapped, loopback;
	__be32 meant[4];

	copy_ip6(ctx, meant);
	mapped = is_mapped(meant);
	loopback = mapped ? is_loopback4(meant[3]) : is_loopback6(meant);
	if (ctx->protocol == IPPROTO_TCP && loopback && own_port(ctx, caller))
		return own_listener6(ctx, caller, meant);
	if (!route || !(loopback || (mapped ? is_host4(meant[3]) : is_host6(meant)))) {
		if (leaves_by_ipv6(caller, meant))
			return fail_with(ENETUNREACH);
		return ctx->protocol == IPPROTO_TCP ? untouched(ctx) : ALLOW;
	}
	if (!(route->flags & ROUTE_LIVE))
		return fail_with(ECONNREFUSED);
	if (!mapped && route->flags & ROUTE_IPV6)
		return use_ipv6(ctx, route, meant);
	return use_ipv4(ctx, route, meant);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct peer_name *name = NULL;

	if (ctx->sk)
		name = bpf_sk_storage_get(&peer_names, ctx->sk, NULL, 0);
	if (name && name->family == AF_INET)
		ctx->user_ip4 = name->address[0];
	return ALLOW;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct peer_name *name = NULL;

	if (ctx->sk)
		name = bpf_sk_storage_get(&peer_names, ctx->sk, NULL, 0);
	if (name && name->family == AF_INET6)
		set_ip6(ctx, name->address);
	return ALLOW;
}

char license_text[] SEC("license") = "GPL";
