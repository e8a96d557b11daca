// SPDX-License-Identifier: Apache-2.0
/*
 * On the host's end of a sandbox's link: translates the outer address to the inner one and back,
 * 1:1 and without state, and lets pass only what is addressed so. Packets between two sandboxes go
 * from link to link, and only to and from trigger ports.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "include/account.h"
#include "include/rewrite.h"

const volatile struct settings settings SEC(".rodata.settings");

/* Destination and source MAC address of what goes into a sandbox; the same for each. */
static const __u8 macs_inwards[12] = {2, 0xae, 0, 0, 0, 2, 2, 0xae, 0, 0, 0, 1};

static __always_inline bool same_ipv6(const __be32 *a, const __be32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline void inner_ipv6(__be32 *address)
{
	address[0] = bpf_htonl(INNER_IPV6_0);
	address[1] = bpf_htonl(INNER_IPV6_1);
	address[2] = bpf_htonl(INNER_IPV6_2);
	address[3] = bpf_htonl(INNER_IPV6_3);
}

/* Neighbour discovery and multicast have no business on this link: neighbours are permanent. */
static __always_inline bool is_unwanted_icmpv6(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 type;

	if (packet->protocol != IPPROTO_ICMPV6 || !packet->has_l4)
		return false;
	if (bpf_skb_load_bytes(skb, packet->l4_offset, &type, sizeof(type)) < 0)
		return true;
	return type > ICMPV6_ECHO_REPLY;
}

/* Put the inner address in the place of the outer. False: the packet is not for this sandbox. */
static __always_inline bool translate_inwards(struct __sk_buff *skb, const struct packet *packet,
					      const struct endpoint *endpoint)
{
	__be32 outer[4], inner[4];

	if (packet->family == AF_INET) {
		if (packet->destination[0] != endpoint->outer_ipv4)
			return false;
		return rewrite_quote4(skb, packet, DESTINATION, endpoint->outer_ipv4,
				      bpf_htonl(INNER_IPV4)) &&
		       rewrite_ipv4(skb, packet, DESTINATION, endpoint->outer_ipv4,
				    bpf_htonl(INNER_IPV4));
	}
	__builtin_memcpy(outer, endpoint->outer_ipv6, sizeof(outer));
	inner_ipv6(inner);
	if (!same_ipv6(packet->destination, outer) || is_unwanted_icmpv6(skb, packet))
		return false;
	return rewrite_quote6(skb, packet, DESTINATION, outer, inner) &&
	       rewrite_ipv6(skb, packet, DESTINATION, outer, inner);
}

/* Put the outer address in the place of the inner. False: the sandbox uses another's address. */
static __always_inline bool translate_outwards(struct __sk_buff *skb, const struct packet *packet,
					       const struct endpoint *endpoint)
{
	__be32 outer[4], inner[4];

	if (packet->family == AF_INET) {
		if (packet->source[0] != bpf_htonl(INNER_IPV4))
			return false;
		return rewrite_quote4(skb, packet, SOURCE, bpf_htonl(INNER_IPV4),
				      endpoint->outer_ipv4) &&
		       rewrite_ipv4(skb, packet, SOURCE, bpf_htonl(INNER_IPV4),
				    endpoint->outer_ipv4);
	}
	__builtin_memcpy(outer, endpoint->outer_ipv6, sizeof(outer));
	inner_ipv6(inner);
	if (!same_ipv6(packet->source, inner) || is_unwanted_icmpv6(skb, packet))
		return false;
	return rewrite_quote6(skb, packet, SOURCE, inner, outer) &&
	       rewrite_ipv6(skb, packet, SOURCE, inner, outer);
}

/* Return the slot that a destination of ours stands for; 0 when it is not one of ours. */
static __always_inline __u32 slot_of(const struct packet *packet)
{
	__u32 word = bpf_ntohl(packet->destination[3]);

	if (packet->family == AF_INET) {
		word = bpf_ntohl(packet->destination[0]);
		return (word & ~SLOT_MASK) == bpf_ntohl(settings.outer_ipv4) ? word & SLOT_MASK : 0;
	}
	if (packet->destination[0] != settings.outer_ipv6[0] ||
	    packet->destination[1] != settings.outer_ipv6[1] ||
	    packet->destination[2] != settings.outer_ipv6[2])
		return 0;
	return word < MAX_SLOTS ? word : 0;
}

/* Send a packet of one sandbox to another's link, if it belongs to a call of a trigger port. */
static __always_inline int to_sibling(struct __sk_buff *skb, const struct packet *packet,
				      const struct endpoint *sender, __u32 slot)
{
	__u32 *link = bpf_map_lookup_elem(&links, &slot);
	struct endpoint *receiver;
	bool asks, answers;

	if (!link || !*link || packet->protocol != IPPROTO_TCP || !packet->has_l4)
		return TC_ACT_SHOT;
	receiver = bpf_map_lookup_elem(&endpoints, link);
	if (!receiver)
		return TC_ACT_SHOT;
	asks = receiver->trigger_port && packet->destination_port == receiver->trigger_port;
	answers = sender->trigger_port && packet->source_port == sender->trigger_port &&
		  (!packet->syn || packet->ack);
	if (!asks && !answers)
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, 0, macs_inwards, sizeof(macs_inwards), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(*link, 0);
}

SEC("tc")
int to_sandbox(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
	struct packet packet = {};

	if (!endpoint || !parse(skb, &packet))
		return TC_ACT_SHOT;
	if (!translate_inwards(skb, &packet, endpoint))
		return TC_ACT_SHOT;
	account(skb, endpoint, &packet, true);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int from_sandbox(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex, slot;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
	struct packet packet = {};

	if (!endpoint || !parse(skb, &packet))
		return TC_ACT_SHOT;
	if (!translate_outwards(skb, &packet, endpoint))
		return TC_ACT_SHOT;
	account(skb, endpoint, &packet, false);
	slot = slot_of(&packet);
	if (slot && slot != HOST_SLOT)
		return to_sibling(skb, &packet, endpoint, slot);
	return TC_ACT_UNSPEC;
}

char license_text[] SEC("license") = "GPL";
