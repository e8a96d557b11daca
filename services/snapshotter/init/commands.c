// SPDX-License-Identifier: Apache-2.0
/* The commands of the control protocol. Each is answered once, some of them later by the machine.
 */
#include "init.h"

#include <stdlib.h>
#include <string.h>

static void settle(const struct command *command, int result)
{
	if (result)
		ctl_failure(command->client);
	else
		ctl_ok(command->client);
}

static void run_status(struct command *command)
{
	struct text text = {0};

	text_add(&text, "ok state=%s root=%d wakes=%lu", state_name(machine.state), machine.root,
		 machine.wakes);
	text_add(&text, " failed=%lu evictions=%lu sequence=%lu generation=%lu",
		 machine.failed_wakes, machine.evictions, machine.sequence, machine.generation);
	ctl_answer(command->client, &text);
}

static void run_wakes(struct command *command)
{
	wakes_answer(command->client, (unsigned long)line_number(&command->line, "since", 0));
}

/* Cuts NUL-terminated words into a NULL-terminated list; returns what follows the last one. */
static char *take_words(char *at, char *end, long count, char **words, size_t room)
{
	if (count < 0 || (size_t)count >= room)
		return NULL;
	for (long i = 0; i < count; i++) {
		char *stop = memchr(at, 0, (size_t)(end - at));

		if (!stop)
			return NULL;
		words[i] = at;
		at = stop + 1;
	}
	words[count] = NULL;
	return at;
}

/* SAFETY: the payload is ours until the next message, and no word leads beyond its end. */
static int read_program(struct command *command, struct program *program)
{
	char *at = (char *)command->payload, *end = at + command->payload_length, *stop;
	long words = 0;

	errno = 0;
	program->cwd = (char *)line_value(&command->line, "cwd");
	program->container = line_number(&command->line, "container", 0) == 1;
	stop = at ? memchr(at, 0, command->payload_length) : NULL;
	if (!program->cwd || !stop)
		return fail("spawn", "no cwd or no payload");
	at = take_words(stop + 1, end, strtol(at, NULL, 10), program->argv,
			ARRAY_SIZE(program->argv));
	for (char *c = at; c && c < end; c++)
		words += *c == 0;
	if (!at || !program->argv[0] ||
	    !take_words(at, end, words, program->env, ARRAY_SIZE(program->env)))
		return fail("spawn", "the payload is cut short or too long");
	return 0;
}

static void run_spawn(struct command *command)
{
	static struct program program;
	struct text text = {0};

	if (read_program(command, &program) || machine_spawn(&program)) {
		ctl_failure(command->client);
		return;
	}
	text_add(&text, "ok pid=%d", machine.root);
	ctl_answer(command->client, &text);
}

static void run_handler_open(struct command *command)
{
	settle(command, handler_open());
}

static void run_handler_close(struct command *command)
{
	handler_close();
	ctl_ok(command->client);
}

static void run_quiesce(struct command *command)
{
	uint16_t port = (uint16_t)line_number(&command->line, "port", 0);
	struct ended ended = {0};
	struct text text = {0};

	if (sockets_end_outside(port, &ended)) {
		ctl_failure(command->client);
		return;
	}
	text_add(&text, "ok inbound=%u outbound=%u", ended.inbound, ended.outbound);
	ctl_answer(command->client, &text);
}

static void run_snapshot(struct command *command)
{
	errno = 0;
	if (command->fd_count != 1)
		settle(command, fail("snapshot", "one descriptor is needed"));
	else
		settle(command, snapshot_attach(command->fds[0]));
}

static int read_policy(const struct command *command)
{
	const struct line *line = &command->line;

	errno = 0;
	policy.port = (uint16_t)line_number(line, "port", 0);
	policy.deadline_ms = line_number(line, "deadline-ms", 0);
	policy.idle_ms = line_number(line, "idle-ms", 0);
	policy.tie_ms = line_number(line, "tie-ms", 30000);
	if (policy.deadline_ms <= 0 || policy.idle_ms < 0)
		return fail("arm", "deadline-ms or idle-ms is missing or out of range");
	if (!command->payload_length || command->payload_length > sizeof(policy.request))
		return fail("arm", "no request, or one that is too long");
	memcpy(policy.request, command->payload, command->payload_length);
	policy.request_length = command->payload_length;
	return 0;
}

/* Takes the tap, the link's packet socket and the state map; they are the init's from then on. */
static int take_endpoint(struct command *command)
{
	const char *ipv4 = line_value(&command->line, "v4"),
		   *ipv6 = line_value(&command->line, "v6");
	long slot = line_number(&command->line, "slot", 0);

	errno = 0;
	if (command->fd_count < 2 || command->fd_count > 3 || !ipv4)
		return fail("arm", "v4 or the descriptors of tap and link are missing");
	if (gate_set_addresses(ipv4, ipv6 ? ipv6 : ""))
		return -1;
	sockets_set_inner(ipv4, ipv6 ? ipv6 : "");
	if (tap_attach(command->fds[0], command->fds[1], policy.port, machine_first_packet))
		return -1;
	state_attach(command->fd_count == 3 ? command->fds[2] : -1, (uint32_t)slot);
	for (size_t i = 0; i < command->fd_count; i++)
		command->fds[i] = -1;
	return 0;
}

static void run_try(struct command *command)
{
	settle(command, read_policy(command) ? -1 : machine_try());
}

static void run_arm(struct command *command)
{
	struct text text = {0};

	if (read_policy(command) || take_endpoint(command) || machine_arm()) {
		ctl_failure(command->client);
		return;
	}
	text_add(&text, "ok generation=%lu", machine.generation);
	ctl_answer(command->client, &text);
}

static void run_touch(struct command *command)
{
	idle_touch();
	ctl_ok(command->client);
}

static void run_evict(struct command *command)
{
	machine_evict(command->client, line_number(&command->line, "hold-ms", 0));
}

void command_run(struct command *command)
{
	static const struct {
		const char *verb;
		void (*run)(struct command *command);
		void (*run_for)(struct client *client);
		bool when_idle; /* in no other state */
	} commands[] = {{"status", run_status},
			{"wakes", run_wakes},
			{"spawn", run_spawn, .when_idle = true},
			{"handler-open", run_handler_open},
			{"handler-close", run_handler_close},
			{"quiesce", run_quiesce},
			{"snapshot", run_snapshot, .when_idle = true},
			{"try", run_try, .when_idle = true},
			{"arm", run_arm, .when_idle = true},
			{"restore", .run_for = machine_restore},
			{"wake", .run_for = machine_wake},
			{"touch", run_touch},
			{"evict", run_evict},
			{"kill-tree", .run_for = machine_kill_tree}};

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].verb, command->line.verb)) {
			if (commands[i].when_idle && machine.state != IDLE)
				machine_refuse(command->client, commands[i].verb);
			else if (commands[i].run_for)
				commands[i].run_for(command->client);
			else
				commands[i].run(command);
			return;
		}
	errno = 0;
	fail("command", "unknown: %.40s", command->line.verb);
	ctl_failure(command->client);
}
