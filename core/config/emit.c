#include "core/config/emit.h"

#include "core/base/text.h"
#include "core/config/node.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { WIDTH = 80, INDENT = 2 };

static int on_write(void *data, unsigned char *bytes, size_t n)
{
    rs_buf_append(data, bytes, n);
    return 1;
}

static void emit(yaml_emitter_t *e, yaml_event_t *event)
{
    int ok = yaml_emitter_emit(e, event);

    assert(ok); /* the events are ours, the texts are UTF-8, the writer cannot fail */
    (void)ok;
}

/* 2026-11-21 and 2026-11-21T08:00:00Z read as dates. */
static bool looks_like_date(const char *text)
{
    static const char form[] = "dddd-d";

    for (size_t i = 0; form[i]; i++)
        if (form[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != form[i])
            return false;
    return true;
}

static bool reads_as_text(const char *text)
{
    struct rs_node n = {0};

    rs_node_resolve(&n, text, false);
    return n.kind == RS_NODE_TEXT && strcmp(text, "=") != 0 && strcmp(text, "<<") != 0 &&
           !looks_like_date(text);
}

static void put_scalar(yaml_emitter_t *e, const char *text, size_t len, bool is_text)
{
    bool plain = !is_text || reads_as_text(text);
    bool lines = is_text && memchr(text, '\n', len) != NULL;
    yaml_event_t event;

    yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)len, plain,
                                 is_text,
                                 lines ? YAML_LITERAL_SCALAR_STYLE : YAML_ANY_SCALAR_STYLE);
    emit(e, &event);
}

static void put(yaml_emitter_t *e, json_t *value);

static void put_map(yaml_emitter_t *e, json_t *value)
{
    yaml_event_t event;
    const char *key;
    json_t *member;

    yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE);
    emit(e, &event);
    json_object_foreach (value, key, member) {
        put_scalar(e, key, strlen(key), true);
        put(e, member);
    }
    yaml_mapping_end_event_initialize(&event);
    emit(e, &event);
}

static void put_list(yaml_emitter_t *e, json_t *value)
{
    yaml_event_t event;
    json_t *item;
    size_t i;

    yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE);
    emit(e, &event);
    json_array_foreach (value, i, item)
        put(e, item);
    yaml_sequence_end_event_initialize(&event);
    emit(e, &event);
}

static void put(yaml_emitter_t *e, json_t *value)
{
    char text[RS_DOUBLE_TEXT];

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        put_map(e, value);
        return;
    case JSON_ARRAY:
        put_list(e, value);
        return;
    case JSON_STRING:
        put_scalar(e, json_string_value(value), json_string_length(value), true);
        return;
    case JSON_INTEGER:
        snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        rs_text_double(json_real_value(value), text);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        snprintf(text, sizeof(text), json_is_true(value) ? "true" : "false");
        break;
    case JSON_NULL:
        snprintf(text, sizeof(text), "null");
        break;
    }
    put_scalar(e, text, strlen(text), false);
}

void rs_yaml_dump(struct rs_buf *out, json_t *value)
{
    yaml_emitter_t e;
    yaml_event_t event;

    yaml_emitter_initialize(&e);
    yaml_emitter_set_output(&e, on_write, out);
    yaml_emitter_set_width(&e, WIDTH);
    yaml_emitter_set_indent(&e, INDENT);
    yaml_emitter_set_unicode(&e, 1);
    yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING);
    emit(&e, &event);
    yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1);
    emit(&e, &event);
    put(&e, value);
    yaml_document_end_event_initialize(&event, 1);
    emit(&e, &event);
    yaml_stream_end_event_initialize(&event);
    emit(&e, &event);
    yaml_emitter_delete(&e);
    if (rs_buf_text(out)[rs_buf_len(out) - 1] != '\n')
        rs_buf_puts(out, "\n");
}
