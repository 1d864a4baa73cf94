/* serve run: as `rserve run` in this process, or, where a cluster runs already, on that.
 *
 * Which: what --address, $RAY_ADDRESS and their like name, else the head that `ray start` left running
 * on this machine, else this process.
 */
#include "cmd/app_source.h"
#include "cmd/background.h"
#include "cmd/deployed.h"
#include "cmd/reload.h"
#include "cmd/remote.h"
#include "cmd/serve.h"
#include "cmd/serve_cli.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { READY_S = 60, LOOK_MS = 2000 };

struct run_options {
    struct rs_serve_options serve;
    struct rs_app_source source;
    const char *address;
    bool non_blocking, reload;
};

#define AT(field) offsetof(struct run_options, field)
static const struct rs_option run_options[] = {
    {"address", 'a', RS_OPT_STRING, AT(address), "ADDRESS",
     "the cluster to run on (default $RAY_ADDRESS, the head that runs on this machine; where there "
     "is none, this process is one)"},
    {"app-dir", 'd', RS_OPT_STRING, AT(source.app_dir), "DIR",
     "where modules are imported from (default: the working directory)"},
    {"name", 0, RS_OPT_STRING, AT(source.name), "NAME",
     "name of the application (default: as in FILE, or default)"},
    {"route-prefix", 0, RS_OPT_STRING, AT(source.route_prefix), "PREFIX",
     "HTTP path below which it answers (default: as in FILE, or /)"},
    {"working-dir", 0, RS_OPT_STRING, AT(source.working_dir), "DIR",
     "working_dir of the runtime_env: a folder, or a URL of a zip file"},
    {"runtime-env", 0, RS_OPT_STRING, AT(source.runtime_env), "FILE",
     "runtime_env of the application, a YAML file"},
    {"runtime-env-json", 0, RS_OPT_STRING, AT(source.runtime_env_json), "JSON", "the same as JSON"},
    {"non-blocking", 0, RS_OPT_FLAG, AT(non_blocking), NULL,
     "come back when the applications run; 'serve shutdown' or 'ray stop' ends them"},
    {"reload", 'r', RS_OPT_FLAG, AT(reload), NULL,
     "deploy anew whenever a source file below --working-dir or --app-dir changes"},
    RS_SERVE_HTTP_OPTIONS(struct run_options, serve),
    RS_SERVE_HEAD_OPTIONS(struct run_options, serve),
    RS_SERVE_NODE_OPTIONS(struct run_options, serve),
    {"blocking", 0, RS_OPT_IGNORED_FLAG},
    {NULL},
};

struct run {
    struct run_options o;
    char *const *words; /* FILE or MODULE:APP, KEY=VALUE.. */
    int n;
    unsigned revision; /* how often it was deployed anew */
    char *watched[2];  /* the folder whose files make that happen, NULL */

    /* on a cluster */
    struct rs_remote remote;
    struct rs_loop *loop;
    struct rs_io signals;
    struct rs_timer look;
    int status;

    /* in the background */
    struct rs_background background;
};

/* The configuration as the files say now. As rs_app_source_load. */
static int load(struct run *r, struct rs_config **ret, struct rs_error *err)
{
    struct rs_app_source source = r->o.source;
    char revision[32];
    int status;

    source.quiet = r->o.serve.quiet;
    source.default_app_dir = ".";
    if (r->revision) {
        snprintf(revision, sizeof(revision), "reload-%d-%u", (int)getpid(), r->revision);
        source.revision = revision;
    }
    status = rs_app_source_load(&source, r->words, r->n, ret, err);
    return status > 0 ? RS_EXIT_FAILED : status; /* it was said; as Ray has it */
}

/* What is watched. */
static int choose_watched(struct run *r, struct rs_error *err)
{
    const char *dir = r->o.source.working_dir ? r->o.source.working_dir
                      : r->o.source.app_dir   ? r->o.source.app_dir
                                              : ".";

    if (!r->o.reload)
        return 0;
    if (r->o.non_blocking)
        return rs_error_set(err, RS_INVALID, "--reload needs --blocking: it watches while it runs");
    r->watched[0] = realpath(dir, NULL);
    if (!r->watched[0])
        return rs_error_errno(err, errno, "--reload: cannot watch '%s'", dir);
    return 0;
}

/* --- in this process ----------------------------------------------------------------------------- */

static int reload_here(const struct rs_reload_change *change, struct rs_config **ret, void *arg,
                       struct rs_error *err)
{
    struct run *r = arg;

    (void)change;
    r->revision++;
    return load(r, ret, err);
}

static int on_ready(const struct rs_serve_ready *at, void *arg)
{
    struct run *r = arg;
    rs_auto(rs_json_decrefp) json_t *said =
        json_pack("{s:s, s:s}", "dashboard", at->dashboard, "log", r->background.log);

    return r->o.non_blocking ? rs_background_ready(&r->background, said) : 0;
}

static int serve_here(struct run *r, struct rs_config *config, struct rs_error *err)
{
    char cwd[PATH_MAX];
    const struct rs_serve_conf conf = {
        .kind = r->o.non_blocking ? "head" : "run", /* 'ray stop' is to end what stays behind */
        .options = &r->o.serve,
        .config = config,
        .app_dir = getcwd(cwd, sizeof(cwd)),
        .http = true,
        .fail_fast = !rs_app_source_is_file(r->words[0]) && !r->o.non_blocking,
        .background = r->o.non_blocking,
        .on_ready = on_ready,
        .reload_folders = r->watched[0] ? (const char *const *)r->watched : NULL,
        .reload = reload_here,
        .arg = r,
    };
    int status = rs_serve(&conf, err);

    if (status < 0 && r->o.non_blocking)
        rs_background_failed(&r->background, err);
    return status;
}

static int serve_behind(struct run *r, struct rs_config *config, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *doc = rs_app_source_document(config), *said = NULL;
    int status = rs_background_start(&r->background, "run", READY_S * RS_SEC, &said, err);

    if (status == 1)
        return serve_here(r, config, err);
    rs_config_free(config);
    if (status < 0 || rs_remote_find(&r->remote, rs_json_str(said, "dashboard", ""), err) < 0)
        return -1;
    status = rs_deployed_wait(&r->remote, doc, err);
    if (status < 0) {
        kill(r->background.pid, SIGTERM);
        return -1;
    }
    printf("It runs in the background; its log is %s\n"
           " * Use `serve status` to check applications' statuses.\n"
           " * Use `ray stop` to end it.\n",
           r->background.log);
    return 0;
}

/* --- on a cluster -------------------------------------------------------------------------------- */

/* *doc: what is ours of what runs there then. */
static int deploy(struct run *r, json_t **doc, struct rs_error *err)
{
    struct rs_config *config = NULL;
    int status = load(r, &config, err);

    if (status != 0)
        return status;
    *doc = rs_app_source_document(config);
    rs_deployed_pin_app_dirs(*doc, config);
    rs_config_free(config);
    /* An import path is one application beside others; a file is all there is to be. */
    return rs_app_source_is_file(r->words[0]) ? rs_remote_put(&r->remote, *doc, err)
                                              : rs_deployed_add(&r->remote, *doc, false, err);
}

static int on_signal(struct rs_io *io, uint32_t events)
{
    struct run *r = rs_container_of(io, struct run, signals);
    struct signalfd_siginfo info = {0};
    struct rs_error err = {0};

    (void)events;
    if (read(io->fd, &info, sizeof(info)) < 0)
        return 0;
    puts(info.ssi_signo == SIGINT ? "Got KeyboardInterrupt, shutting down..."
                                  : "Got a signal to end, shutting down...");
    fflush(stdout);
    if (rs_remote_delete(&r->remote, &err) < 0) {
        fprintf(stderr, "serve run: %s\n", err.msg);
        r->status = RS_EXIT_FAILED;
    }
    rs_loop_stop(r->loop);
    return 0;
}

/* Is it still there? */
static int on_look(struct rs_timer *t)
{
    struct run *r = rs_container_of(t, struct run, look);
    rs_auto(rs_json_decrefp) json_t *details = NULL;
    struct rs_error err = {0};

    if (rs_remote_details(&r->remote, &details, &err) < 0) {
        fprintf(stderr, "serve run: the cluster is gone: %s\n", err.msg);
        r->status = RS_EXIT_FAILED;
        rs_loop_stop(r->loop);
        return 0;
    }
    rs_timer_start(t, r->loop, rs_clock_now() + LOOK_MS * RS_MS);
    return 0;
}

static void on_changed(const struct rs_reload_change *change, void *arg)
{
    struct run *r = arg;
    rs_auto(rs_json_decrefp) json_t *doc = NULL;
    struct rs_error err = {0};

    printf("%s has changed, deploying anew\n", change->files[0]);
    r->revision++;
    if (deploy(r, &doc, &err) < 0 || (doc && rs_deployed_wait(&r->remote, doc, &err) < 0))
        fprintf(stderr, "serve run: %s\n", err.msg);
    fflush(stdout);
}

static int take_signals(struct run *r, struct rs_error *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    r->signals.fn = on_signal;
    r->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (r->signals.fd < 0)
        return rs_error_errno(err, errno, "signalfd");
    return rs_io_start(&r->signals, r->loop, EPOLLIN, err);
}

static int stay(struct run *r, struct rs_error *err)
{
    rs_auto(rs_loop_freep) struct rs_loop *loop = NULL;
    rs_auto(rs_reload_freep) struct rs_reload *reload = NULL;
    int status;

    if (rs_loop_new(&loop, err) < 0)
        return -1;
    r->loop = loop;
    r->look.fn = on_look;
    status = take_signals(r, err);
    if (status == 0 && r->watched[0])
        status = rs_reload_new(&reload, loop, (const char *const *)r->watched, on_changed, r, err);
    if (status == 0) {
        rs_timer_start(&r->look, loop, rs_clock_now() + LOOK_MS * RS_MS);
        status = rs_loop_run(loop);
    }
    rs_timer_stop(&r->look);
    rs_io_stop(&r->signals);
    rs_closep(&r->signals.fd);
    return status < 0 ? -1 : r->status;
}

static int run_there(struct run *r, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *doc = NULL;
    int status = deploy(r, &doc, err);

    if (status != 0)
        return status;
    if (rs_app_source_is_file(r->words[0])) {
        puts("Submitted deploy config successfully.");
    } else if (rs_deployed_wait(&r->remote, doc, err) < 0) {
        return -1;
    }
    fflush(stdout);
    return r->o.non_blocking ? 0 : stay(r, err);
}

/* ------------------------------------------------------------------------------------------------- */

static int run_here(struct run *r, struct rs_error *err)
{
    struct rs_config *config = NULL;
    int status = load(r, &config, err);

    if (status != 0)
        return status;
    return r->o.non_blocking ? serve_behind(r, config, err) : serve_here(r, config, err);
}

static int run_run(int argc, char *argv[], struct rs_error *err)
{
    struct run r = {.o = {.serve = RS_SERVE_DEFAULTS}, .signals = {.fd = -1}};
    int n = rs_verb_parse(&rs_serve_verb_run, argc, argv, &r.o, err), status = -1;

    if (n < 0)
        return -1;
    r.words = argv + 1;
    r.n = n;
    if (choose_watched(&r, err) == 0 && rs_remote_find_cluster(&r.remote, r.o.address, err) == 0) {
        if (!r.o.serve.quiet)
            printf(rs_app_source_is_file(argv[1]) ? "Running config file: '%s'.\n"
                                                  : "Running import path: '%s'.\n",
                   argv[1]);
        fflush(stdout);
        status = r.remote.by <= RS_REMOTE_HEAD ? run_there(&r, err) : run_here(&r, err);
    }
    rs_options_fini(run_options, &r.o);
    free(r.watched[0]);
    return status;
}

const struct rs_verb rs_serve_verb_run = {
    .of = "serve",
    .name = "run",
    .args = "FILE|MODULE:APP [KEY=VALUE]...",
    .summary = "deploy applications and stay until Ctrl-C, which deletes them",
    .details =
        "On a cluster that runs already an import path is deployed beside what is there, a file "
        "replaces it; Ctrl-C deletes every application, as with Ray.",
    .min_args = 1,
    .max_args = -1,
    .options = run_options,
    .run = run_run,
    .file_args = true,
};
