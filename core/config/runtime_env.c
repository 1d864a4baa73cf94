/* Paths of a runtime_env made absolute, and the requirements files that it names read. */
#include "core/config/fields.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REQUIREMENTS_MAX (1u << 20)

static char *home_path(const char *dir, const char *path)
{
    const char *home = getenv("HOME");

    if (home && path[0] == '~' && (path[1] == '/' || path[1] == '\0'))
        return rs_asprintf("%s%s", home, path + 1);
    return rs_config_path(dir, path);
}

static void put_path(json_t *object, const char *key, const char *dir)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (!text || !*text || rs_is_url(text))
        return;
    rs_auto(rs_freep) char *full = home_path(dir, text);

    json_object_set_new(object, key, json_string_nocheck(full));
}

/* One line of a requirements file without its comment and blanks around it; NULL: nothing is left. */
static char *clean_line(const char *line, size_t n)
{
    size_t from = 0;

    for (size_t i = 0; i < n; i++) {
        if (line[i] == '#' && (i == 0 || isspace((unsigned char)line[i - 1]))) {
            n = i;
            break;
        }
    }
    while (from < n && isspace((unsigned char)line[from]))
        from++;
    while (n > from && isspace((unsigned char)line[n - 1]))
        n--;
    return n > from ? rs_asprintf("%.*s", (int)(n - from), line + from) : NULL;
}

/* "-r more.txt", "./pkg" and so on with absolute paths. The caller's. */
static char *anchor(const char *dir, const char *line)
{
    static const char *const options[] = {"-r ", "--requirement ", "-c ", "--constraint ",
                                          "-f ", "--find-links ",  "-e ", "--editable "};

    if (strncmp(line, "./", 2) == 0 || strncmp(line, "../", 3) == 0)
        return rs_config_path(dir, line);
    for (size_t i = 0; i < RS_COUNT(options); i++) {
        size_t n = strlen(options[i]);
        const char *value = line + n;

        if (strncmp(line, options[i], n) != 0)
            continue;
        while (*value == ' ')
            value++;
        if (rs_is_url(value) || *value == '\0' || *value == '/' || strchr(value, '+') ||
            (i >= 6 && *value != '.'))
            break;
        rs_auto(rs_freep) char *full = home_path(dir, value);

        return rs_asprintf("%s%s", options[i], full);
    }
    return rs_strdup(line);
}

static void append_lines(json_t *list, const char *dir, const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        rs_auto(rs_freep) char *line = clean_line(text, n);

        if (line) {
            rs_auto(rs_freep) char *full = anchor(dir, line);

            json_array_append_new(list, json_string(full)); /* NULL if it is not UTF-8: left out */
        }
        text += n + (text[n] == '\n');
    }
}

/* The requirements in a regular file of bounded size, as a list; NULL with the reason. */
static json_t *read_requirements(const char *path, struct rs_error *err)
{
    rs_auto(rs_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    rs_auto(rs_freep) char *dir = rs_strdup(path);
    struct stat st;
    json_t *list;

    if (fd < 0 || fstat(fd, &st) < 0) {
        rs_error_errno(err, errno, "cannot read the requirements file %s", path);
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > REQUIREMENTS_MAX) {
        rs_error_set(err, RS_INVALID, "cannot read the requirements file %s: %s", path,
                     S_ISREG(st.st_mode) ? "larger than 1 MiB" : "not a regular file");
        return NULL;
    }
    for (;;) {
        ssize_t n = read(fd, rs_buf_reserve(&text, 65536), 65536);

        if (n < 0) {
            rs_error_errno(err, errno, "cannot read the requirements file %s", path);
            return NULL;
        }
        if (n == 0 || rs_buf_len(&text) > REQUIREMENTS_MAX)
            break;
        rs_buf_commit(&text, (size_t)n);
    }
    *(strrchr(dir, '/') ? strrchr(dir, '/') : dir) = '\0';
    list = json_array();
    append_lines(list, dir, rs_buf_text(&text));
    return list;
}

/* `object[key]`: a list whose paths become absolute, or the path of a file that a list replaces. */
static int resolve_packages(json_t *object, const char *key, const char *dir, struct rs_error *err)
{
    json_t *value = json_object_get(object, key), *list, *item;
    size_t i;

    if (json_is_string(value)) {
        rs_auto(rs_freep) char *path = home_path(dir, json_string_value(value));

        list = read_requirements(path, err);
        if (!list)
            return rs_error_wrap(err, "%s", key);
        json_object_set_new(object, key, list);
        return 0;
    }
    if (!json_is_array(value))
        return 0;
    list = json_array();
    json_array_foreach (value, i, item)
        append_lines(list, dir, json_string_value(item) ? json_string_value(item) : "");
    json_object_set_new(object, key, list);
    return 0;
}

int rs_runtime_env_resolve(json_t *env, const char *dir, struct rs_error *err)
{
    static const char *const tools[] = {"pip", "uv"};
    const char *conda = json_string_value(json_object_get(env, "conda"));
    const char *python = json_string_value(json_object_get(env, "py_executable"));
    json_t *modules = json_object_get(env, "py_modules"), *item;
    size_t i;

    put_path(env, "working_dir", dir);
    json_array_foreach (modules, i, item) {
        const char *text = json_string_value(item);
        rs_auto(rs_freep) char *full = text && !rs_is_url(text) ? home_path(dir, text) : NULL;

        if (full)
            json_array_set_new(modules, i, json_string_nocheck(full));
    }
    if (conda && (strchr(conda, '/') || strstr(conda, ".yml") || strstr(conda, ".yaml")))
        put_path(env, "conda", dir);
    if (python && strncmp(python, "./", 2) == 0)
        put_path(env, "py_executable", dir);
    for (i = 0; i < RS_COUNT(tools); i++) {
        json_t *value = json_object_get(env, tools[i]);

        if (json_is_object(value) ? resolve_packages(value, "packages", dir, err) < 0
                                  : resolve_packages(env, tools[i], dir, err) < 0)
            return json_is_object(value) ? rs_error_wrap(err, "%s", tools[i]) : -1;
    }
    return 0;
}

/* --- what a document that came over REST may name ------------------------------------------------- */

static void remote_only(struct rs_walk *w, const struct rs_node *n)
{
    struct stat st;

    if (n->kind != RS_NODE_TEXT || !*n->text || rs_is_url(n->text))
        return;
    if (*n->text == '/' && stat(n->text, &st) == 0)
        return;
    rs_walk_error(w, n->line, n->column,
                  "runtime_envs in the Serve config support only remote URIs in working_dir and "
                  "py_modules. Got error when parsing URI: Invalid protocol for runtime_env URI "
                  "\"%.200s\" (a path must be absolute, and there on the head)",
                  n->text);
}

void rs_rules_remote_env(struct rs_walk *w, const struct rs_node *env)
{
    const struct rs_node_entry *dir = rs_node_get(env, "working_dir");
    const struct rs_node_entry *modules = rs_node_get(env, "py_modules");
    size_t back = rs_walk_key(w, "runtime_env");

    if (dir) {
        size_t here = rs_walk_key(w, "working_dir");

        remote_only(w, dir->value);
        rs_walk_back(w, here);
    }
    for (size_t i = 0; modules && modules->value->kind == RS_NODE_LIST && i < modules->value->count;
         i++) {
        size_t here = rs_walk_key(w, "py_modules");

        rs_walk_index(w, i);
        remote_only(w, modules->value->items[i]);
        rs_walk_back(w, here);
    }
    rs_walk_back(w, back);
}
