/* Words of a command line, and small texts that options are written in. */
#include "core/config/fields.h"

#include "core/base/alloc.h"

#include <stdlib.h>
#include <string.h>

/* Reads one word from *at. False: a quote is not closed. */
static bool word(const char **at, struct rs_buf *out)
{
    const char *p = *at;

    for (; *p && !strchr(" \t\r\n", *p); p++) {
        if (*p == '\\' && p[1]) {
            rs_buf_append(out, ++p, 1);
        } else if (*p == '\'' || *p == '"') {
            char quote = *p++;

            for (; *p != quote; p++) {
                if (quote == '"' && *p == '\\' && p[1] && strchr("\"\\$`", p[1]))
                    p++;
                if (!*p)
                    return false;
                rs_buf_append(out, p, 1);
            }
        } else {
            rs_buf_append(out, p, 1);
        }
    }
    *at = p;
    return true;
}

json_t *rs_command_split(const char *text)
{
    rs_auto(rs_json_decrefp) json_t *words = json_array();

    for (;;) {
        rs_auto(rs_buf_fini) struct rs_buf out = {0};

        text += strspn(text, " \t\r\n");
        if (!*text)
            return rs_steal(words);
        if (!word(&text, &out))
            return NULL;
        json_array_append_new(words, json_string_nocheck(rs_buf_text(&out)));
    }
}

void rs_command_expand(struct rs_buf *out, const char *word_text, int port, const char *socket)
{
    for (const char *p = word_text; *p; p++) {
        if (strncmp(p, "{{", 2) == 0 || strncmp(p, "}}", 2) == 0) {
            rs_buf_append(out, p++, 1);
        } else if (strncmp(p, "{port}", 6) == 0 && port > 0) {
            rs_buf_printf(out, "%d", port);
            p += 5;
        } else if (strncmp(p, "{socket}", 8) == 0 && socket) {
            rs_buf_puts(out, socket);
            p += 7;
        } else {
            rs_buf_append(out, p, 1);
        }
    }
}

int rs_log_level_number(const char *text)
{
    static const struct {
        const char *name;
        int level;
    } levels[] = {{"CRITICAL", 50}, {"FATAL", 50}, {"ERROR", 40}, {"WARNING", 30},
                  {"WARN", 30},     {"INFO", 20},  {"DEBUG", 10}, {"NOTSET", 0}};
    char *end;
    long v;

    for (size_t i = 0; text && i < RS_COUNT(levels); i++) {
        if (strcasecmp(text, levels[i].name) == 0)
            return levels[i].level;
    }
    if (!text || *text < '0' || *text > '9')
        return -1;
    v = strtol(text, &end, 10);
    return *end || v > 1000 ? -1 : (int)v;
}

bool rs_import_path_is_valid(const char *text)
{
    const char *colon = strchr(text, ':');
    const char *dot = strrchr(text, '.');
    size_t len = strlen(text);

    if (len < 3 || strpbrk(text, " \t\r\n/\\") || text[0] == '.' || text[len - 1] == '.')
        return false;
    if (colon)
        return colon > text && colon[1] && !strchr(colon + 1, ':') && colon[-1] != '.' &&
               colon[1] != '.';
    return dot != NULL;
}

const char *rs_route_prefix_problem(const char *text)
{
    size_t len = strlen(text);

    if (text[0] != '/')
        return "must start with '/'";
    if (len > 1 && text[len - 1] == '/')
        return "must not end with '/'";
    if (strpbrk(text, "{}"))
        return "must not contain wildcards";
    if (strpbrk(text, " \t\r\n?#"))
        return "must not contain blanks, '?' or '#'";
    return NULL;
}
