// SPDX-License-Identifier: Apache-2.0
/* The newest wakes, kept for a service that was away. */
#include "init.h"

#define KEPT 64
static struct wake kept[KEPT];
static unsigned long newest;

void wakes_keep(const struct wake *wake)
{
	kept[wake->sequence % KEPT] = *wake;
	newest = wake->sequence;
}

static void describe(struct text *text, const struct wake *wake)
{
	text_add(text, " sequence=%lu cause=%s", wake->sequence,
		 wake->by_command ? "command" : "packet");
	text_add(text, " syn=%lu sent=%lu", (unsigned long)wake->syn_ns,
		 (unsigned long)wake->sent_ns);
	text_add(text, " answer=%lu open=%lu", (unsigned long)wake->answer_ns,
		 (unsigned long)wake->open_ns);
	text_add(text, " held=%d root=%d limit-ms=%ld", wake->held, wake->root, wake->limit_ms);
	text_add(text, " cr-errno=%d", wake->cr_errno);
	text_pair(text, "failure", wake->failure);
	text_pair(text, "client", wake->client);
	text_pair(text, "error", wake->error);
}

void wakes_report(const struct wake *wake)
{
	struct text text = {0};

	text_add(&text, "report wake");
	describe(&text, wake);
	ctl_report(&text);
}

void wakes_answer(struct client *client, unsigned long since)
{
	unsigned long oldest = newest > KEPT ? newest - KEPT : 0;

	for (unsigned long i = since > oldest ? since : oldest; i < newest; i++) {
		struct text text = {0};

		text_add(&text, "wake");
		describe(&text, &kept[(i + 1) % KEPT]);
		ctl_answer(client, &text);
	}
	ctl_ok(client);
}
