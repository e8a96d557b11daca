// SPDX-License-Identifier: Apache-2.0
/* Publishes the sandbox's state in the netplane's map, through a descriptor that was handed over.
 */
#include "init.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/bpf.h>

/* The value of `endpoint_state` as ARCHITECTURE.md section 5 lays it out. */
struct endpoint_state {
	uint32_t state, generation;
	uint64_t first_syn_ns, first_answer_ns, reserved;
};

static int map = -1;
static uint32_t slot;

void state_attach(int map_fd, uint32_t map_slot)
{
	if (map >= 0)
		close(map);
	map = map_fd;
	slot = map_slot;
}

static int element(int command, struct endpoint_state *value)
{
	union bpf_attr attributes = {0};

	attributes.map_fd = (uint32_t)map;
	attributes.key = (uint64_t)(uintptr_t)&slot;
	attributes.value = (uint64_t)(uintptr_t)value;
	attributes.flags = 0;
	return (int)syscall(SYS_bpf, command, &attributes, sizeof(attributes));
}

/* ARMED starts a new count of times; the others leave what the tc program stamped. */
void state_publish(enum published state)
{
	struct endpoint_state value = {0};

	if (map < 0)
		return;
	/* SAFETY: value is as large as the map's values, which Sandbox.arm() checked. */
	if (state != PUBLISHED_ARMED && element(BPF_MAP_LOOKUP_ELEM, &value))
		last_words("state map: lookup: errno %d", errno);
	value.state = state;
	value.generation = (uint32_t)machine.generation;
	if (element(BPF_MAP_UPDATE_ELEM, &value))
		last_words("state map: update: errno %d", errno);
}
