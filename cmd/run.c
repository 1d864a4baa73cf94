/* rserve run: what to serve comes from a file or from an import path. */
#include "cmd/check.h"
#include "cmd/serve.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/config/config.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct run_options {
    struct rs_serve_options serve;
    const char *app_dir, *name, *route_prefix;
    bool check, no_import;
};

static const struct rs_option run_options[] = {
    {"app-dir", 'd', RS_OPT_STRING, offsetof(struct run_options, app_dir), "DIR",
     "where modules are imported from (default: the folder of FILE, or the working directory)"},
    {"name", 0, RS_OPT_STRING, offsetof(struct run_options, name), "NAME",
     "name of the application (default: as in FILE, or default)"},
    {"route-prefix", 0, RS_OPT_STRING, offsetof(struct run_options, route_prefix), "PREFIX",
     "HTTP path below which it answers (default: as in FILE, or /)"},
    RS_SERVE_HTTP_OPTIONS(struct run_options, serve),
    RS_SERVE_HEAD_OPTIONS(struct run_options, serve),
    RS_SERVE_NODE_OPTIONS(struct run_options, serve),
    {"check", 0, RS_OPT_FLAG, offsetof(struct run_options, check), NULL,
     "validate, print the resulting deployments, and exit 0 or 2"},
    {"no-import", 0, RS_OPT_FLAG, offsetof(struct run_options, no_import), NULL,
     "with --check: do not import the applications' modules"},
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

/* KEY=VALUE words as a JSON object of text. */
static int read_pairs(char *const *words, int n, json_t **ret, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *args = json_object();

    for (int i = 0; i < n; i++) {
        const char *eq = strchr(words[i], '=');
        rs_auto(rs_freep) char *key = NULL;

        if (!eq || eq == words[i])
            return rs_error_set(err, RS_INVALID,
                                "invalid application argument '%s', must be of the form "
                                "'<key>=<val>'",
                                words[i]);
        key = rs_strndup(words[i], (size_t)(eq - words[i]));
        if (json_object_set_new(args, key, json_string(eq + 1)) < 0)
            return rs_error_set(err, RS_INVALID, "application argument '%s' is not UTF-8",
                                words[i]);
    }
    *ret = rs_steal(args);
    return 0;
}

/* A file, by its existence or its looks; else an import path. */
static bool is_file(const char *word)
{
    static const char *const endings[] = {".yaml", ".yml", ".json"};
    size_t len = strlen(word);
    struct stat st;

    for (size_t i = 0; i < RS_COUNT(endings); i++) {
        size_t n = strlen(endings[i]);

        if (len > n && strcmp(word + len - n, endings[i]) == 0)
            return true;
    }
    return strchr(word, '/') || (stat(word, &st) == 0 && !S_ISDIR(st.st_mode));
}

static void print_diags(const struct rs_diags *diags)
{
    struct rs_buf text = {0};

    rs_diags_print(&text, diags);
    fputs(rs_buf_text(&text), stderr);
    rs_buf_fini(&text);
}

/* 0, -1 with `err`, or an exit status after everything was said. */
static int load(const struct run_options *o, int n, char *argv[], struct rs_config **ret,
                struct rs_error *err)
{
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    rs_auto(rs_json_decrefp) json_t *args = NULL;
    struct rs_diags diags = {0};
    bool refused;
    int r;

    if (is_file(argv[1])) {
        r = rs_config_load(&c, argv[1], &diags);
        if (!o->serve.quiet || diags.errors)
            print_diags(&diags);
        refused = r < 0 || (o->check && diags.errors);
        rs_diags_fini(&diags);
        if (refused)
            return RS_EXIT_USAGE;
        if (n > 1)
            fprintf(stderr, "warning: %s is a file, %s is ignored\n", argv[1], argv[2]);
    } else {
        if (read_pairs(argv + 2, n - 1, &args, err) < 0 ||
            rs_config_from_import(&c, argv[1], o->name, o->route_prefix, args, err) < 0)
            return -1;
    }
    if (o->name && rs_config_set_name(c, o->name, err) < 0)
        return -1;
    if (o->route_prefix && rs_config_set_route_prefix(c, o->route_prefix, err) < 0)
        return -1;
    if (o->app_dir && rs_config_set_app_dir(c, o->app_dir, err) < 0)
        return -1;
    *ret = rs_steal(c);
    return 0;
}

static int cmd_run(int argc, char *argv[], struct rs_error *err)
{
    struct run_options o = {.serve = RS_SERVE_DEFAULTS};
    struct rs_config *config = NULL;
    rs_auto(rs_freep) char *folder = NULL; /* of FILE: where later configurations start too */
    int n = rs_verb_parse(&rs_verb_run, argc, argv, &o, err);
    int r;

    if (n < 0)
        return -1;
    r = load(&o, n, argv, &config, err);
    if (r == 0)
        folder = rs_strdup(config->dir);
    if (r == 0 && o.check)
        r = rs_check(config, &o.serve, !o.no_import, err);
    else if (r == 0)
        r = rs_serve(&(struct rs_serve_conf){.options = &o.serve,
                                             .config = config,
                                             .app_dir = o.app_dir ? o.app_dir : folder,
                                             .http = true,
                                             .fail_fast = !is_file(argv[1])},
                     err);
    rs_options_fini(run_options, &o);
    return r;
}
