// SPDX-License-Identifier: Apache-2.0
/*
 * Reserves trigger ports on the host, and makes a function's listener on its own loopback one that
 * packets from outside reach: 127.0.0.1 becomes 0.0.0.0, ::1 becomes the inner IPv6 address (not
 * ::, which would take IPv4 as well and leave no room for a listener on 127.0.0.1).
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "include/socket_address.h"

#define REFUSE 0
#define ALLOW 1

/* Answer a process of the host that binds a reserved port: somebody has it. */
static __always_inline int bind_on_host(struct bpf_sock_addr *ctx)
{
	__u16 port = bpf_ntohs(ctx->user_port);

	if (!bpf_map_lookup_elem(&routes, &port))
		return ALLOW;
	bpf_set_retval(-EADDRINUSE);
	return REFUSE;
}

/* Return the sandbox that binds its trigger port, or NULL; port 0 asks the kernel for any. */
static __always_inline struct sandbox *binder(struct bpf_sock_addr *ctx, __u64 cookie)
{
	struct sandbox *sandbox = bpf_map_lookup_elem(&sandboxes, &cookie);

	if (!ctx->user_port || !sandbox || sandbox->trigger_port != bpf_ntohs(ctx->user_port))
		return NULL;
	return sandbox;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);

	if (ctx->protocol != IPPROTO_TCP)
		return ALLOW;
	if (cookie == settings.host_cookie)
		return bind_on_host(ctx);
	if (binder(ctx, cookie) && is_loopback4(ctx->user_ip4))
		ctx->user_ip4 = 0;
	return ALLOW;
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct sandbox *sandbox;
	__be32 address[4];

	if (ctx->protocol != IPPROTO_TCP)
		return ALLOW;
	if (cookie == settings.host_cookie)
		return bind_on_host(ctx);
	sandbox = binder(ctx, cookie);
	if (!sandbox)
		return ALLOW;
	copy_ip6(ctx, address);
	if (is_mapped(address) && is_loopback4(address[3])) {
		address[3] = 0;
		set_ip6(ctx, address);
	} else if (is_loopback6(address) && address[3]) {
		inner_ipv6(address);
		set_ip6(ctx, address);
		sandbox->flags |= SANDBOX_LOOPBACK6_MOVED;
	} else if (is_inner_ipv6(address)) { /* a restored listener that was moved before */
		sandbox->flags |= SANDBOX_LOOPBACK6_MOVED;
	}
	return ALLOW;
}

char license_text[] SEC("license") = "GPL";
