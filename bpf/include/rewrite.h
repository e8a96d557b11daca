/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts one address in the place of another in a packet, with every checksum that covers it: the
 * header's, the transport protocol's, and, in an ICMP error, the quoted packet's.
 */
#ifndef AETHERLESS_REWRITE_H
#define AETHERLESS_REWRITE_H

#include "packet.h"

enum side { SOURCE, DESTINATION };

#define IPV4_CHECKSUM offsetof(struct iphdr, check)
#define IPV4_ADDRESS(side) \
	((side) == SOURCE ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr))
#define IPV6_ADDRESS(side) \
	((side) == SOURCE ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr))
#define ICMP_QUOTE 8 /* where an ICMP error quotes the packet that it is about */

/* Return where the checksum over the pseudo header stands, or -1 when there is none here. */
static __always_inline int checksum_offset(const struct packet *packet)
{
	if (!packet->has_l4)
		return -1;
	if (packet->protocol == IPPROTO_TCP)
		return packet->l4_offset + offsetof(struct tcphdr, check);
	if (packet->protocol == IPPROTO_UDP)
		return packet->l4_offset + offsetof(struct udphdr, check);
	if (packet->protocol == IPPROTO_ICMPV6 && packet->family == AF_INET6)
		return packet->l4_offset + offsetof(struct icmp6hdr, icmp6_cksum);
	return -1;
}

/* A UDP packet may have no checksum, which stays so. */
static __always_inline __u64 checksum_flags(const struct packet *packet)
{
	return BPF_F_PSEUDO_HDR | (packet->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
}

static __always_inline bool rewrite_ipv4(struct __sk_buff *skb, const struct packet *packet,
					 enum side side, __be32 from, __be32 to)
{
	int checksum = checksum_offset(packet);

	if (checksum >= 0 &&
	    bpf_l4_csum_replace(skb, checksum, from, to, checksum_flags(packet) | sizeof(to)))
		return false;
	return !bpf_l3_csum_replace(skb, ETH_HLEN + IPV4_CHECKSUM, from, to, sizeof(to)) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN + IPV4_ADDRESS(side), &to, sizeof(to), 0);
}

static __always_inline bool rewrite_ipv6(struct __sk_buff *skb, const struct packet *packet,
					 enum side side, const __be32 *from, const __be32 *to)
{
	int checksum = checksum_offset(packet);
	__s64 difference = bpf_csum_diff((__be32 *)from, 16, (__be32 *)to, 16, 0);

	if (checksum >= 0 &&
	    bpf_l4_csum_replace(skb, checksum, 0, difference, checksum_flags(packet)))
		return false;
	return !bpf_skb_store_bytes(skb, ETH_HLEN + IPV6_ADDRESS(side), to, 16, 0);
}

/*
 * An ICMP error quotes a packet that went the other way, so the other side of the quote has our
 * address. The quoted header's checksum changes against the address: the ICMP sum stays right.
 */
static __always_inline bool rewrite_quote4(struct __sk_buff *skb, const struct packet *packet,
					   enum side side, __be32 from, __be32 to)
{
	__u32 quote = packet->l4_offset + ICMP_QUOTE;
	enum side other = side == SOURCE ? DESTINATION : SOURCE;
	__be32 quoted;
	__u8 type;

	if (packet->protocol != IPPROTO_ICMP || !packet->has_l4)
		return true;
	if (bpf_skb_load_bytes(skb, packet->l4_offset, &type, sizeof(type)) < 0)
		return false;
	if (type != ICMP_DEST_UNREACH && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETERPROB)
		return true;
	if (bpf_skb_load_bytes(skb, quote + IPV4_ADDRESS(other), &quoted, sizeof(quoted)) < 0)
		return false;
	if (quoted != from)
		return true;
	return !bpf_l3_csum_replace(skb, quote + IPV4_CHECKSUM, from, to, sizeof(to)) &&
	       !bpf_skb_store_bytes(skb, quote + IPV4_ADDRESS(other), &to, sizeof(to), 0);
}

/* The same for ICMPv6, whose checksum covers the quoted address. */
static __always_inline bool rewrite_quote6(struct __sk_buff *skb, const struct packet *packet,
					   enum side side, const __be32 *from, const __be32 *to)
{
	__u32 quote = packet->l4_offset + ICMP_QUOTE;
	enum side other = side == SOURCE ? DESTINATION : SOURCE;
	__be32 quoted[4];
	__s64 difference;
	__u8 type;

	if (packet->protocol != IPPROTO_ICMPV6 || !packet->has_l4)
		return true;
	if (bpf_skb_load_bytes(skb, packet->l4_offset, &type, sizeof(type)) < 0)
		return false;
	if (type >= ICMPV6_ERROR_LIMIT)
		return true;
	if (bpf_skb_load_bytes(skb, quote + IPV6_ADDRESS(other), quoted, sizeof(quoted)) < 0)
		return false;
	if (quoted[0] != from[0] || quoted[1] != from[1] || quoted[2] != from[2] ||
	    quoted[3] != from[3])
		return true;
	difference = bpf_csum_diff((__be32 *)from, 16, (__be32 *)to, 16, 0);
	return !bpf_l4_csum_replace(skb, checksum_offset(packet), 0, difference, 0) &&
	       !bpf_skb_store_bytes(skb, quote + IPV6_ADDRESS(other), to, 16, 0);
}

#endif
