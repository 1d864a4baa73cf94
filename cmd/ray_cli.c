/* The group `ray`, what it does not have, and its short verbs. */
#include "cmd/ray_cli.h"

#include "cmd/remote.h"
#include "cmd/running.h"
#include "cmd/serve_cli.h"
#include "core/base/clock.h"
#include "net/wire/resolve.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

/* --- health-check -------------------------------------------------------------------------------- */

enum { HEALTH_S = 5 };

struct health_options {
    const char *address;
};

static const struct rs_option health_options[] = {
    {"address", 0, RS_OPT_STRING, offsetof(struct health_options, address), "HOST:PORT",
     "where nodes join it (default $RAY_ADDRESS, the head of this machine, 127.0.0.1:6379)"},
    {"component", 0, RS_OPT_IGNORED},
    {"skip-version-check", 0, RS_OPT_IGNORED_FLAG},
    {NULL},
};

static int run_health(int argc, char *argv[], struct rs_error *err);

static const struct rs_verb verb_health = {
    .of = "ray",
    .name = "health-check",
    .args = "",
    .summary = "exit with 0 if a head takes nodes, else with 1",
    .options = health_options,
    .run = run_health,
};

static void join_address(const char *given, char *out, size_t size)
{
    const char *cluster = given && *given ? given : getenv("RAY_ADDRESS");
    const struct rs_running *head;
    struct rs_running_all all;

    if (cluster && *cluster && strcmp(cluster, "auto") != 0) {
        snprintf(out, size, "%s", cluster);
        return;
    }
    rs_running_read(&all);
    head = rs_running_head(&all);
    snprintf(out, size, "%s", head && head->join[0] ? head->join : "127.0.0.1:6379");
    rs_running_fini(&all);
}

static int run_health(int argc, char *argv[], struct rs_error *err)
{
    struct health_options o = {0};
    struct pollfd p = {.events = POLLOUT};
    rs_auto(rs_closep) int fd = -1;
    int failed = 0;
    socklen_t len = sizeof(failed);
    struct rs_address at;
    char text[300];

    if (rs_verb_parse(&verb_health, argc, argv, &o, err) < 0)
        return -1;
    join_address(o.address, text, sizeof(text));
    if (rs_address_resolve(text, 6379, HEALTH_S * RS_SEC, &at, err) < 0 ||
        rs_tcp_connect(&at, &fd, err) < 0)
        return -1;
    p.fd = fd;
    if (poll(&p, 1, HEALTH_S * 1000) <= 0)
        return rs_error_set(err, RS_TIMEOUT, "%s does not answer within %d seconds", text,
                            HEALTH_S);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len) < 0 || failed)
        return rs_error_errno(err, failed, "no head at %s", text);
    return 0;
}

/* --- the group ----------------------------------------------------------------------------------- */

static const struct rs_verb *const verbs[] = {
    /* in the order of --help */
    &rs_ray_verb_start, &rs_ray_verb_stop, &rs_ray_verb_status, &verb_health, NULL,
};

static const struct rs_verb_absent absent[] = {
    {"job", "rserve has no jobs; run the program with 'rserve python FILE'"},
    {"list", "'rserve status' shows what runs, 'rserve status --json' all of it"},
    {"get", "'rserve status' shows what runs, 'rserve status --json' all of it"},
    {"summary", "'rserve status' shows what runs, 'rserve status --json' all of it"},
    {"memory", "'ray status' shows the memory that is reserved"},
    {"logs", "the logs of replicas are files; 'rserve status --json' names each as log_file_path"},
    {"up", "rserve does not start machines"},
    {"down", "rserve does not start machines"},
    {"exec", "rserve does not start machines"},
    {"submit", "rserve does not start machines"},
    {"attach", "rserve does not start machines"},
    {"timeline", "rserve does not record one; GET /metrics of the REST API has figures"},
    {NULL},
};

const struct rs_verb rs_verb_ray = {
    .name = "ray",
    .args = "VERB [OPTIONS] [ARGS]",
    .summary = "the part of Ray's command line that starts and stops nodes",
    .details = "The executable answers to the name 'ray' too: 'rserve install-links DIR' makes the "
               "link.",
    .verbs = verbs,
    .absent = absent,
    .version = "ray, version " RS_RAY_VERSION,
};
