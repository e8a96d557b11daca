// SPDX-License-Identifier: Apache-2.0
/* The newest wakes, kept for a service that was away. */
#include "init.h"

#include <stdio.h>

#define KEPT 64
static struct wake kept[KEPT];
static unsigned long newest;

/* Notes how a restore ended; without an answer CRIU's last words are taken. */
void wakes_end(struct wake *wake, const char *how, const struct answer *answer)
{
	struct answer words = {0};

	wake->answer_ns = now_ns();
	if (!answer) {
		restore_words(&words);
		answer = &words;
	}
	wake->failure = how;
	wake->cr_errno = answer->cr_errno;
	snprintf(wake->error, sizeof(wake->error), "%.1000s", answer->words);
}

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

static void answer_line(struct client *client, const struct wake *wake)
{
	struct text text = {0};

	text_add(&text, "wake");
	describe(&text, wake);
	ctl_answer(client, &text);
}

/* Answers with one wake. */
void wakes_tell(struct client *client, const struct wake *wake)
{
	answer_line(client, wake);
	ctl_ok(client);
}

void wakes_answer(struct client *client, unsigned long since)
{
	unsigned long oldest = newest > KEPT ? newest - KEPT : 0;

	for (unsigned long i = since > oldest ? since : oldest; i < newest; i++)
		answer_line(client, &kept[(i + 1) % KEPT]);
	ctl_ok(client);
}
