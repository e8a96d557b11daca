/* SPDX-License-Identifier: Apache-2.0 */
/* Counts what a route's connections do, and stamps the wake of a sandbox with kernel time. */
#ifndef AETHERLESS_ACCOUNT_H
#define AETHERLESS_ACCOUNT_H

#include "maps.h"
#include "packet.h"

/* Return the position of the highest set bit; 0 for 0 and 1. */
static __always_inline __u32 highest_bit(__u64 value)
{
	__u32 bit = 0;

	for (__u32 step = 32; step; step >>= 1) {
		if (value >> step) {
			value >>= step;
			bit += step;
		}
	}
	return bit;
}

/* Return the histogram's bucket for a time; see HISTOGRAM_BUCKETS. */
static __always_inline __u32 bucket_of(__u64 nanoseconds)
{
	__u64 units = nanoseconds >> HISTOGRAM_UNIT_SHIFT;
	__u32 shift, bucket;

	if (units < HISTOGRAM_SUB)
		return units;
	shift = highest_bit(units) - HISTOGRAM_SUB_SHIFT;
	bucket = (shift + 1) * HISTOGRAM_SUB + ((units >> shift) & (HISTOGRAM_SUB - 1));
	return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* Stamp the first SYN since the sandbox was armed; one that was woken by command has no wake. */
static __always_inline void stamp_first_syn(const struct endpoint *endpoint)
{
	struct endpoint_state *state = bpf_map_lookup_elem(&endpoint_state, &endpoint->slot);

	if (!state || state->first_syn_ns)
		return;
	if (state->state == STATE_ARMED || state->state == STATE_RESTORING)
		__sync_val_compare_and_swap(&state->first_syn_ns, 0, bpf_ktime_get_ns());
}

/* Tell the netplane of a wake that was answered. Full ring: the counters still have it. */
static __always_inline void report(const struct endpoint *endpoint,
				   const struct endpoint_state *state)
{
	struct first_answer *record = bpf_ringbuf_reserve(&traffic, sizeof(*record), 0);

	if (!record)
		return;
	record->first_syn_ns = state->first_syn_ns;
	record->first_answer_ns = state->first_answer_ns;
	record->slot = endpoint->slot;
	record->generation = state->generation;
	record->route_port = endpoint->route_port;
	record->reserved = 0;
	bpf_ringbuf_submit(record, 0);
}

/* Stamp the first payload out after the first SYN: the wake as its client saw it. */
static __always_inline void stamp_first_answer(const struct endpoint *endpoint,
					       struct counters *counters)
{
	struct endpoint_state *state = bpf_map_lookup_elem(&endpoint_state, &endpoint->slot);
	struct histogram *histogram;
	__u64 now;
	__u32 bucket;

	if (!state || !state->first_syn_ns || state->first_answer_ns)
		return;
	now = bpf_ktime_get_ns();
	if (__sync_val_compare_and_swap(&state->first_answer_ns, 0, now))
		return;
	report(endpoint, state);
	if (!counters)
		return;
	counters->answered_wakes++;
	histogram = bpf_map_lookup_elem(&route_histograms, &endpoint->route_port);
	bucket = bucket_of(now - state->first_syn_ns);
	if (histogram && bucket < HISTOGRAM_BUCKETS)
		__sync_fetch_and_add(&histogram->buckets[bucket], 1);
}

/* Return the connection's entry; a SYN that is no repetition makes a new one and is counted. */
static __always_inline struct flow *flow_of(const struct flow_key *key, const struct packet *packet,
					    bool to_function, struct counters *counters)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);
	struct flow fresh = {.syn_sequence = packet->sequence};
	bool opening = to_function && packet->syn && !packet->ack;

	if (opening && !(flow && flow->syn_sequence == packet->sequence)) {
		counters->connections++;
		fresh.next_to_function = packet->sequence + 1;
		fresh.seen = FLOW_SEEN_CLIENT;
		bpf_map_update_elem(&flows, key, &fresh, BPF_ANY);
		return NULL;
	}
	if (flow || (!packet->payload && !packet->rst))
		return flow;
	/* An entry that had to give way: the connection goes on with a new one. */
	bpf_map_update_elem(&flows, key, &fresh, BPF_ANY);
	return bpf_map_lookup_elem(&flows, key);
}

/*
 * Move a side's next sequence number on, and return by how much. Two processors may have packets of
 * one connection in hand at a time: who changes the number counts what lies between. After
 * NEXT_TRIES lost races the others have counted beyond this packet, or very nearly.
 */
static __always_inline __u32 move_on(__u32 *next, __u32 end)
{
	__u32 before = *next;

	for (int i = 0; i < NEXT_TRIES; i++) {
		__s32 ahead = (__s32)(end - before);
		__u32 found;

		if (ahead <= 0)
			return 0;
		found = __sync_val_compare_and_swap(next, before, end);
		if (found == before)
			return ahead;
		before = found;
	}
	return 0;
}

/*
 * Return how many bytes of the packet's payload nobody counted yet. A repetition has none; where a
 * packet overtook another it stands for both.
 */
static __always_inline __u32 fresh_bytes(struct flow *flow, const struct packet *packet,
					 bool to_function)
{
	__u8 side = to_function ? FLOW_SEEN_CLIENT : FLOW_SEEN_FUNCTION;
	__u32 end = packet->sequence + packet->payload + (packet->syn ? 1 : 0);
	__u32 *next = to_function ? &flow->next_to_function : &flow->next_to_client;

	if (!(flow->seen & side)) {
		flow->seen |= side;
		*next = end;
		return packet->payload;
	}
	return move_on(next, end);
}

/* Note one packet on its connection. A request is a turn from answering to asking. */
static __always_inline void count(const struct flow_key *key, const struct packet *packet,
				  bool to_function, struct counters *counters)
{
	struct flow *flow = flow_of(key, packet, to_function, counters);
	__u32 bytes;

	if (!flow)
		return;
	if (packet->rst && !flow->reset) {
		flow->reset = 1;
		counters->resets++;
	}
	bytes = fresh_bytes(flow, packet, to_function);
	if (!bytes || !packet->payload)
		return;
	if (to_function)
		counters->received_bytes += bytes;
	else
		counters->sent_bytes += bytes;
	if (to_function && flow->turn != TURN_CLIENT)
		counters->requests++;
	flow->turn = to_function ? TURN_CLIENT : TURN_FUNCTION;
}

/* Account one TCP packet between a client and the function's listener. */
static __always_inline void account(const struct __sk_buff *skb, const struct endpoint *endpoint,
				    const struct packet *packet, bool to_function)
{
	const __be32 *client = to_function ? packet->source : packet->destination;
	__u16 port = to_function ? packet->destination_port : packet->source_port;
	struct counters *counters;
	struct flow_key key = {};

	if (packet->protocol != IPPROTO_TCP || !packet->has_l4)
		return;
	if (!endpoint->trigger_port || port != endpoint->trigger_port)
		return;
	if (to_function && packet->syn && !packet->ack)
		stamp_first_syn(endpoint);
	counters = bpf_map_lookup_elem(&route_counters, &endpoint->route_port);
	if (!to_function && packet->payload)
		stamp_first_answer(endpoint, counters);
	if (!counters)
		return;
	key.ifindex = skb->ifindex;
	key.family = packet->family;
	key.client_port = to_function ? packet->source_port : packet->destination_port;
	key.client[0] = client[0];
	key.client[1] = client[1];
	key.client[2] = client[2];
	key.client[3] = client[3];
	count(&key, packet, to_function, counters);
}

#endif
