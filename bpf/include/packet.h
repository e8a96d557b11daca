/* SPDX-License-Identifier: Apache-2.0 */
/* What the translation programs read of a packet. Works on packets of any layout in memory. */
#ifndef AETHERLESS_PACKET_H
#define AETHERLESS_PACKET_H

#include "consts.h"

#define MAX_EXTENSION_HEADERS 6

/* The parts of a packet that are looked at. Offsets are from the Ethernet header. */
struct packet {
	__u32 family; /* AF_INET, AF_INET6, or 0 for anything else */
	__be32 source[4];
	__be32 destination[4];
	__u32 protocol;
	__u32 l4_offset;
	__u32 l4_length;   /* header and payload of the transport protocol */
	bool has_l4;	   /* false for any fragment but the first */
	__u16 source_port; /* TCP only, as are those below */
	__u16 destination_port;
	__u32 sequence;
	__u32 payload;
	bool syn;
	bool ack;
	bool rst;
};

/* Read the IPv4 header. False: there is none. */
static __always_inline bool parse_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr ip;
	__u32 length, header;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
		return false;
	header = ip.ihl * 4u;
	length = ip.tot_len ? bpf_ntohs(ip.tot_len) : skb->len - ETH_HLEN;
	if (ip.version != 4 || header < sizeof(ip) || length < header)
		return false;
	packet->family = AF_INET;
	packet->source[0] = ip.saddr;
	packet->destination[0] = ip.daddr;
	packet->protocol = ip.protocol;
	packet->l4_offset = ETH_HLEN + header;
	packet->l4_length = length - header;
	packet->has_l4 = !(ip.frag_off & bpf_htons(IP_FRAGMENT_OFFSET));
	return true;
}

/* Step over one IPv6 extension header. False: it was the last, or the packet is cut short. */
static __always_inline bool skip_extension(struct __sk_buff *skb, struct packet *packet)
{
	__u8 header[4];
	__u32 size;

	if (packet->protocol != NEXTHDR_HOP && packet->protocol != NEXTHDR_ROUTING &&
	    packet->protocol != NEXTHDR_DEST && packet->protocol != NEXTHDR_FRAGMENT)
		return false;
	if (bpf_skb_load_bytes(skb, packet->l4_offset, header, sizeof(header)) < 0)
		return false;
	size = (header[1] + 1) * 8;
	if (packet->protocol == NEXTHDR_FRAGMENT) {
		size = 8;
		if (header[2] || header[3] & 0xf8)
			packet->has_l4 = false;
	}
	if (packet->l4_length < size)
		return false;
	packet->protocol = header[0];
	packet->l4_offset += size;
	packet->l4_length -= size;
	return packet->has_l4;
}

/* Read the IPv6 header and step over its extensions. False: there is none. */
static __always_inline bool parse_ipv6(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0 || ip.version != 6)
		return false;
	packet->family = AF_INET6;
	__builtin_memcpy(packet->source, &ip.saddr, 16);
	__builtin_memcpy(packet->destination, &ip.daddr, 16);
	packet->protocol = ip.nexthdr;
	packet->l4_offset = ETH_HLEN + sizeof(ip);
	packet->l4_length =
		ip.payload_len ? bpf_ntohs(ip.payload_len) : skb->len - ETH_HLEN - sizeof(ip);
	packet->has_l4 = true;
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++)
		if (!skip_extension(skb, packet))
			break;
	return true;
}

/* Read the TCP header of a packet that has one. False: it is cut short. */
static __always_inline bool parse_tcp(struct __sk_buff *skb, struct packet *packet)
{
	struct tcphdr tcp;
	__u32 header;

	if (bpf_skb_load_bytes(skb, packet->l4_offset, &tcp, sizeof(tcp)) < 0)
		return false;
	header = tcp.doff * 4u;
	packet->source_port = bpf_ntohs(tcp.source);
	packet->destination_port = bpf_ntohs(tcp.dest);
	packet->sequence = bpf_ntohl(tcp.seq);
	packet->payload = packet->l4_length > header ? packet->l4_length - header : 0;
	packet->syn = tcp.syn;
	packet->ack = tcp.ack;
	packet->rst = tcp.rst;
	return true;
}

/* Read all that is looked at. False: the packet is not IP, or damaged. */
static __always_inline bool parse(struct __sk_buff *skb, struct packet *packet)
{
	bool known = false;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		known = parse_ipv4(skb, packet);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		known = parse_ipv6(skb, packet);
	if (!known)
		return false;
	if (packet->protocol == IPPROTO_TCP && packet->has_l4)
		return parse_tcp(skb, packet);
	return true;
}

#endif
