/* The group `serve`, and its verbs that look at a running instance or stop it. */
#include "cmd/serve_cli.h"

#include "cmd/remote.h"
#include "cmd/status.h"
#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/config/emit.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define ADDRESS_OPTION(type)                                                                       \
    {                                                                                              \
        "address", 'a', RS_OPT_STRING, offsetof(type, address), "URL",                             \
            "where the REST API is (default $RAY_DASHBOARD_ADDRESS, $RAY_ADDRESS, the newest "     \
            "head of this "                                                                        \
            "machine, http://127.0.0.1:8265)"                                                      \
    }

/* Where it is, and what it says. */
static int ask(const char *address, struct rs_remote *remote, json_t **details,
               struct rs_error *err)
{
    if (rs_remote_find(remote, address, err) < 0)
        return -1;
    return rs_remote_details(remote, details, err);
}

static void print(const struct rs_buf *out)
{
    fwrite(rs_buf_text(out), 1, rs_buf_len(out), stdout);
}

/* --- status -------------------------------------------------------------------------------------- */

struct name_options {
    const char *address, *name;
};

static const struct rs_option status_options[] = {
    ADDRESS_OPTION(struct name_options),
    {"name", 'n', RS_OPT_STRING, offsetof(struct name_options, name), "APP",
     "only this application"},
    {NULL},
};

static int run_status(int argc, char *argv[], struct rs_error *err);

static const struct rs_verb verb_status = {
    .of = "serve",
    .name = "status",
    .args = "",
    .summary = "print the statuses of applications as YAML",
    .details =
        "Exit status 0 if it answered, also where there is no such application: as Ray does, "
        "for scripts that wait for one. 'rserve status' tells more.",
    .options = status_options,
    .run = run_status,
};

static int run_status(int argc, char *argv[], struct rs_error *err)
{
    struct name_options o = {0};
    rs_auto(rs_json_decrefp) json_t *details = NULL;
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    struct rs_remote remote;

    if (rs_verb_parse(&verb_status, argc, argv, &o, err) < 0 ||
        ask(o.address, &remote, &details, err) < 0)
        return -1;
    if (o.name && !json_object_get(json_object_get(details, "applications"), o.name)) {
        fprintf(stderr, "Application \"%s\" does not exist.\n", o.name);
        return 0;
    }
    if (rs_status_yaml(details, o.name, &out, err) < 0)
        return -1;
    print(&out);
    return 0;
}

/* --- config -------------------------------------------------------------------------------------- */

static int run_config(int argc, char *argv[], struct rs_error *err);

static const struct rs_verb verb_config = {
    .of = "serve",
    .name = "config",
    .args = "",
    .summary = "print the configurations that were deployed as YAML",
    .options = status_options,
    .run = run_config,
};

static int run_config(int argc, char *argv[], struct rs_error *err)
{
    struct name_options o = {0};
    rs_auto(rs_json_decrefp) json_t *details = NULL;
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    const char *separator = "";
    struct rs_remote remote;
    const char *name;
    json_t *app;

    if (rs_verb_parse(&verb_config, argc, argv, &o, err) < 0 ||
        ask(o.address, &remote, &details, err) < 0)
        return -1;
    json_object_foreach (json_object_get(details, "applications"), name, app) {
        json_t *config = json_object_get(app, "deployed_app_config");

        if (!json_is_object(config) || (o.name && strcmp(name, o.name) != 0))
            continue;
        rs_buf_puts(&out, separator);
        rs_yaml_dump(&out, config);
        separator = "\n---\n\n";
    }
    if (rs_buf_len(&out) == 0 && o.name)
        return rs_error_set(err, RS_NOT_FOUND,
                            "No config has been deployed for application \"%s\".", o.name);
    if (rs_buf_len(&out) == 0)
        rs_buf_puts(&out, "No configuration was found.\n");
    print(&out);
    return 0;
}

/* --- shutdown ------------------------------------------------------------------------------------ */

struct shutdown_options {
    const char *address;
    bool yes;
};

static const struct rs_option shutdown_options[] = {
    ADDRESS_OPTION(struct shutdown_options),
    {"yes", 'y', RS_OPT_FLAG, offsetof(struct shutdown_options, yes), NULL, "do not ask"},
    {NULL},
};

static int run_shutdown(int argc, char *argv[], struct rs_error *err);

static const struct rs_verb verb_shutdown = {
    .of = "serve",
    .name = "shutdown",
    .args = "",
    .summary = "delete all applications",
    .details = "The nodes stay; 'ray stop' ends those of this machine.",
    .options = shutdown_options,
    .run = run_shutdown,
};

static void on_interrupt(int signal)
{
    (void)signal; /* it is there to end the wait */
}

/* One line of standard input without its newline, up to `size`. False: its end, or Ctrl-C, which
 * is held back but for the waits in here. */
static bool read_line(char *line, size_t size, const sigset_t *waiting)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};

    for (size_t n = 0; n < size; n++) {
        if (ppoll(&in, 1, NULL, waiting) <= 0 || read(STDIN_FILENO, line + n, 1) != 1)
            return false;
        if (line[n] == '\n') {
            line[n] = '\0';
            return true;
        }
    }
    return false;
}

/* True for a yes. The end of the input and Ctrl-C are a no. */
static bool confirmed(const char *base)
{
    struct sigaction act = {.sa_handler = on_interrupt};
    sigset_t interrupt, before;
    char line[80];

    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &before);
    sigaction(SIGINT, &act, NULL);
    printf("This will shut down Serve on the cluster at address \"%s\" and delete all applications "
           "there. Do you want to continue? [y/N]: ",
           base);
    fflush(stdout);
    if (!read_line(line, sizeof(line), &before)) {
        putchar('\n');
        return false;
    }
    signal(SIGINT, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return strcasecmp(line, "y") == 0 || strcasecmp(line, "yes") == 0;
}

static int run_shutdown(int argc, char *argv[], struct rs_error *err)
{
    struct shutdown_options o = {0};
    struct rs_remote remote;

    if (rs_verb_parse(&verb_shutdown, argc, argv, &o, err) < 0 ||
        rs_remote_find(&remote, o.address, err) < 0)
        return -1;
    if (!o.yes && !confirmed(remote.base)) {
        fflush(stdout);
        fputs("Aborted!\n", stderr);
        return RS_EXIT_FAILED;
    }
    if (rs_remote_delete(&remote, err) < 0)
        return -1;
    puts("Sent shutdown request; applications will be deleted asynchronously.");
    return 0;
}

/* --- controller-health --------------------------------------------------------------------------- */

struct health_options {
    const char *address;
    bool json;
};

static const struct rs_option health_options[] = {
    ADDRESS_OPTION(struct health_options),
    {"json", 0, RS_OPT_FLAG, offsetof(struct health_options, json), NULL, "as JSON"},
    {NULL},
};

static int run_health(int argc, char *argv[], struct rs_error *err);

static const struct rs_verb verb_health = {
    .of = "serve",
    .name = "controller-health",
    .args = "",
    .summary = "print figures of the control plane",
    .options = health_options,
    .run = run_health,
};

static int run_health(int argc, char *argv[], struct rs_error *err)
{
    struct health_options o = {0};
    rs_auto(rs_json_decrefp) json_t *details = NULL;
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    rs_auto(rs_freep) char *text = NULL;
    struct rs_remote remote;
    json_t *health;

    if (rs_verb_parse(&verb_health, argc, argv, &o, err) < 0 ||
        ask(o.address, &remote, &details, err) < 0)
        return -1;
    health = json_object_get(details, "controller_health_metrics");
    if (!json_is_object(health))
        return rs_error_set(err, RS_NOT_FOUND, "%s tells no figures of its controller",
                            remote.base);
    if (o.json) {
        text = json_dumps(health, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
        rs_buf_printf(&out, "%s\n", text);
    } else {
        rs_yaml_dump(&out, health);
    }
    print(&out);
    return 0;
}

/* --- the group ----------------------------------------------------------------------------------- */

static const struct rs_verb *const verbs[] = {
    /* in the order of --help */
    &rs_serve_verb_run, &rs_serve_verb_start, &rs_serve_verb_deploy, &verb_status, &verb_config,
    &verb_shutdown,     &rs_serve_verb_build, &verb_health,          NULL,
};

const struct rs_verb rs_verb_serve = {
    .name = "serve",
    .args = "VERB [OPTIONS] [ARGS]",
    .summary = "the command line of Ray Serve",
    .details =
        "The executable answers to the name 'serve' too: 'rserve install-links DIR' makes the "
        "link.",
    .verbs = verbs,
    .version = "serve, version " RS_RAY_VERSION,
};
