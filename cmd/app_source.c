#include "cmd/app_source.h"

#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/json.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool rs_app_source_is_file(const char *word)
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

/* KEY=VALUE words as a JSON object of text. */
static int read_pairs(char *const *words, int n, json_t **ret, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *args = json_object();

    for (int i = 0; i < n; i++) {
        const char *eq = strchr(words[i], '=');
        rs_auto(rs_freep) char *key = NULL;

        if (!eq || eq == words[i])
            return rs_error_set(err, RS_INVALID,
                                "Invalid application argument '%s', must be of the form "
                                "'<key>=<val>'.",
                                words[i]);
        key = rs_strndup(words[i], (size_t)(eq - words[i]));
        if (json_object_set_new(args, key, json_string(eq + 1)) < 0)
            return rs_error_set(err, RS_INVALID, "application argument '%s' is not UTF-8",
                                words[i]);
    }
    *ret = rs_steal(args);
    return 0;
}

/* --- runtime environment ------------------------------------------------------------------------- */

static bool is_url(const char *text)
{
    return strstr(text, "://") != NULL;
}

static int set_working_dir(json_t *env, const char *dir, struct rs_error *err)
{
    char path[PATH_MAX];
    struct stat st;

    if (!is_url(dir) && !realpath(dir, path))
        return rs_error_errno(err, errno, "--working-dir '%s'", dir);
    if (!is_url(dir) && (stat(path, &st) < 0 || !(S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))))
        return rs_error_set(err, RS_INVALID, "--working-dir '%s' is no folder", dir);
    if (json_object_set_new(env, "working_dir", json_string(is_url(dir) ? dir : path)) < 0)
        return rs_error_set(err, RS_INVALID, "--working-dir: expected a path in UTF-8");
    return 0;
}

/* NULL in *ret: none was asked for. */
static int read_runtime_env(const struct rs_app_source *o, json_t **ret, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *env = NULL;

    if (o->runtime_env && o->runtime_env_json)
        return rs_error_set(err, RS_INVALID,
                            "Only one of --runtime-env and --runtime-env-json can be provided.");
    if (!o->runtime_env && !o->runtime_env_json && !o->working_dir)
        return 0;
    if (o->runtime_env && rs_yaml_load(&env, o->runtime_env, err) < 0)
        return -1;
    if (o->runtime_env_json && rs_json_parse(&env, o->runtime_env_json, strlen(o->runtime_env_json),
                                             "--runtime-env-json", err) < 0)
        return -1;
    if (!env)
        env = json_object();
    if (!json_is_object(env))
        return rs_error_set(err, RS_INVALID,
                            "--runtime-env%s: expected a mapping such as "
                            "{\"env_vars\": {\"A\": \"1\"}}",
                            o->runtime_env ? "" : "-json");
    if (o->working_dir && set_working_dir(env, o->working_dir, err) < 0)
        return -1;
    *ret = rs_steal(env);
    return 0;
}

/* --- loading ------------------------------------------------------------------------------------- */

static void print_diags(const struct rs_diags *diags)
{
    struct rs_buf text = {0};

    rs_diags_print(&text, diags);
    fputs(rs_buf_text(&text), stderr);
    rs_buf_fini(&text);
}

static int load_file(const struct rs_app_source *o, char *const *words, int n,
                     struct rs_config **ret)
{
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    struct rs_diags diags = {0};
    int r = rs_config_load(&c, words[0], &diags);
    bool refused = r < 0 || (o->strict && diags.errors);

    if (!o->quiet || diags.errors)
        print_diags(&diags);
    rs_diags_fini(&diags);
    if (refused)
        return RS_EXIT_USAGE;
    if (n > 1)
        fprintf(stderr, "warning: %s is a file, %s is ignored\n", words[0], words[1]);
    *ret = rs_steal(c);
    return 0;
}

/* The same configuration with `env` (NULL: as it is) and `revision` in every application. */
static int amend(struct rs_config **c, const json_t *env, const char *revision,
                 struct rs_error *err)
{
    rs_auto(rs_config_freep) struct rs_config *amended = NULL;
    rs_auto(rs_diags_fini) struct rs_diags diags = {0};
    rs_auto(rs_json_decrefp) json_t *doc = rs_app_source_document(*c);
    rs_auto(rs_freep) char *text = NULL;
    json_t *app;
    size_t i;

    json_array_foreach (json_object_get(doc, "applications"), i, app) {
        json_t *ext = json_object_get(app, "rserve");

        if (env)
            json_object_set_new(app, "runtime_env", json_deep_copy(env));
        if (!revision)
            continue;
        if (!json_is_object(ext))
            json_object_set_new(app, "rserve", ext = json_object());
        json_object_set_new(ext, "revision", json_string(revision));
    }
    text = rs_json_dump(doc);
    if (rs_config_parse(&amended, text, strlen(text), NULL, &diags) < 0)
        return rs_diags_to_error(&diags, err);
    if (rs_config_default_app_dir(amended, (*c)->dir, err) < 0)
        return -1;
    rs_config_free(*c);
    *c = rs_steal(amended);
    return 0;
}

int rs_app_source_load(const struct rs_app_source *o, char *const *words, int n,
                       struct rs_config **ret, struct rs_error *err)
{
    rs_auto(rs_config_freep) struct rs_config *c = NULL;
    rs_auto(rs_json_decrefp) json_t *args = NULL;
    rs_auto(rs_json_decrefp) json_t *env = NULL;
    int r;

    if (read_runtime_env(o, &env, err) < 0)
        return -1;
    if (rs_app_source_is_file(words[0])) {
        r = load_file(o, words, n, &c);
        if (r != 0)
            return r;
    } else {
        if (read_pairs(words + 1, n - 1, &args, err) < 0 ||
            rs_config_from_import(&c, words[0], o->name, o->route_prefix, args, err) < 0)
            return -1;
    }
    if ((env || o->revision) && amend(&c, env, o->revision, err) < 0)
        return -1;
    if (o->default_app_dir && rs_config_default_app_dir(c, o->default_app_dir, err) < 0)
        return -1;
    if (o->name && rs_config_set_name(c, o->name, err) < 0)
        return -1;
    if (o->route_prefix && rs_config_set_route_prefix(c, o->route_prefix, err) < 0)
        return -1;
    if (o->app_dir && rs_config_set_app_dir(c, o->app_dir, err) < 0)
        return -1;
    *ret = rs_steal(c);
    return 0;
}

json_t *rs_app_source_document(const struct rs_config *c)
{
    json_t *doc = json_deep_copy(c->json);
    json_t *list = json_array();

    for (size_t i = 0; i < c->app_count; i++) {
        json_t *app = json_deep_copy(c->apps[i].json);
        json_t *ext = json_object_get(app, "rserve");

        if (json_object_get(ext, "app_dir"))
            json_object_set_new(ext, "app_dir", json_string(c->apps[i].app_dir));
        json_array_append_new(list, app);
    }
    json_object_set_new(doc, "applications", list);
    return doc;
}
