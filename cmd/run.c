/* rserve run: what to serve comes from a file or from an import path. */
#include "cmd/app_source.h"
#include "cmd/check.h"
#include "cmd/reload.h"
#include "cmd/serve.h"
#include "cmd/simulate.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/config/config.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run_options {
    struct rs_serve_options serve;
    struct rs_app_source source;
    bool check, no_import, reload;
    struct rs_simulate_options simulate;
};

static const struct rs_option run_options[] = {
    {"app-dir", 'd', RS_OPT_STRING, offsetof(struct run_options, source.app_dir), "DIR",
     "where modules are imported from (default: the folder of FILE, or the working directory)"},
    {"name", 0, RS_OPT_STRING, offsetof(struct run_options, source.name), "NAME",
     "name of the application (default: as in FILE, or default)"},
    {"route-prefix", 0, RS_OPT_STRING, offsetof(struct run_options, source.route_prefix), "PREFIX",
     "HTTP path below which it answers (default: as in FILE, or /)"},
    RS_SERVE_HTTP_OPTIONS(struct run_options, serve),
    RS_SERVE_HEAD_OPTIONS(struct run_options, serve),
    RS_SERVE_NODE_OPTIONS(struct run_options, serve),
    {"reload", 'r', RS_OPT_FLAG, offsetof(struct run_options, reload), NULL,
     "deploy anew whenever FILE, or a source file below a folder of modules changes"},
    {"check", 0, RS_OPT_FLAG, offsetof(struct run_options, check), NULL,
     "validate, print the resulting deployments, and exit 0 or 2"},
    {"no-import", 0, RS_OPT_FLAG, offsetof(struct run_options, no_import), NULL,
     "with --check: do not import the applications' modules"},
    {"simulate", 0, RS_OPT_STRING, offsetof(struct run_options, simulate.trace), "TRACE",
     "serve nothing: predict what FILE would do with the requests of TRACE (docs/simulate.md)"},
    {"json", 0, RS_OPT_FLAG, offsetof(struct run_options, simulate.json), NULL,
     "with --simulate: figures for programs"},
    {"start-time", 0, RS_OPT_DURATION, offsetof(struct run_options, simulate.start_time), "TIME",
     "with --simulate: what a replica takes to be ready (default 0.1s)", .max = INT64_MAX / 4},
    {NULL},
};

static int cmd_run(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_verb_run = {
    .name = "run",
    .args = "FILE|MODULE:APP [KEY=VALUE]...",
    .summary = "serve applications on this machine",
    .details = "FILE is a ServeConfigV2 file (rserve help config); MODULE:APP an application or a "
               "builder function, which gets the KEY=VALUE pairs as its arguments.\n"
               "Ctrl-C finishes the requests under way and stops; a second one stops now.",
    .min_args = 1,
    .max_args = -1,
    .options = run_options,
    .run = cmd_run,
    .file_args = true,
};

/* --- --reload ------------------------------------------------------------------------------------ */

struct watching {
    const struct run_options *o;
    char *const *words; /* FILE or MODULE:APP, KEY=VALUE.. */
    int n;
    unsigned revision;       /* how often modules were to be imported anew */
    char *file;              /* the configuration file, absolute; NULL: none */
    const char **folders;    /* ends with NULL; NULL: --reload was not given */
    struct rs_config *first; /* what they borrow from */
};

static void add_folder(struct watching *w, size_t *n, const char *folder)
{
    for (size_t i = 0; i < *n; i++)
        if (strcmp(w->folders[i], folder) == 0)
            return;
    w->folders[(*n)++] = folder;
}

/* The folders of the modules, and that of the file. */
static int watch_what(struct watching *w, struct rs_error *err)
{
    struct rs_app_source source = w->o->source;
    size_t n = 0;
    int r;

    source.quiet = true; /* it was said */
    r = rs_app_source_load(&source, w->words, w->n, &w->first, err);
    if (r != 0)
        return r;
    w->folders = rs_alloc((w->first->app_count + 2) * sizeof(*w->folders));
    if (rs_app_source_is_file(w->words[0])) {
        w->file = realpath(w->words[0], NULL);
        add_folder(w, &n, w->first->dir);
    }
    for (size_t i = 0; i < w->first->app_count; i++)
        if (w->first->apps[i].app_dir)
            add_folder(w, &n, w->first->apps[i].app_dir);
    return 0;
}

/* Another revision imports the modules anew; the file alone need not do that. */
static int on_reload(const struct rs_reload_change *change, struct rs_config **ret, void *arg,
                     struct rs_error *err)
{
    struct watching *w = arg;
    struct rs_app_source source = w->o->source;
    bool file_alone =
        change->n == 1 && !change->more && w->file && strcmp(change->files[0], w->file) == 0;
    char revision[32];

    w->revision += !file_alone;
    snprintf(revision, sizeof(revision), "reload-%u", w->revision);
    source.revision = w->revision ? revision : NULL;
    source.quiet = w->o->serve.quiet;
    return rs_app_source_load(&source, w->words, w->n, ret, err);
}

static void watching_fini(struct watching *w)
{
    free(w->file);
    free(w->folders);
    rs_config_free(w->first);
}

/* ------------------------------------------------------------------------------------------------- */

static int cmd_run(int argc, char *argv[], struct rs_error *err)
{
    struct run_options o = {.serve = RS_SERVE_DEFAULTS, .simulate.start_time = 100 * RS_MS};
    struct rs_config *config = NULL;
    rs_auto(rs_freep) char *folder = NULL; /* of FILE: where later configurations start too */
    int n = rs_verb_parse(&rs_verb_run, argc, argv, &o, err);
    struct watching w = {.o = &o, .words = argv + 1, .n = n};
    int r;

    if (n < 0)
        return -1;
    o.source.quiet = o.serve.quiet;
    o.source.strict = o.check;
    r = rs_app_source_load(&o.source, argv + 1, n, &config, err);
    if (r == 0)
        folder = rs_strdup(config->dir);
    if (r == 0 && o.reload && !o.check && !o.simulate.trace)
        r = watch_what(&w, err);
    if (r != 0)
        rs_config_free(config);
    else if (o.simulate.trace)
        r = rs_simulate_command(config, &o.serve, &o.simulate, err);
    else if (o.check)
        r = rs_check(config, &o.serve, !o.no_import, err);
    else
        r = rs_serve(
            &(struct rs_serve_conf){.kind = "run",
                                    .options = &o.serve,
                                    .config = config,
                                    .app_dir = o.source.app_dir ? o.source.app_dir : folder,
                                    .http = true,
                                    .fail_fast = !rs_app_source_is_file(argv[1]) && !o.reload,
                                    .reload_folders = w.folders,
                                    .reload = on_reload,
                                    .arg = &w},
            err);
    watching_fini(&w);
    rs_options_fini(run_options, &o);
    return r;
}
