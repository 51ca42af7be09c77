/* Switches lamps and says what became of it at each: MQTT 5 with libmosquitto.
 *
 *     make && ./switch on floor3 [only=lamp-1,lamp-2] [except=lamp-3]
 *
 * BUGLE_SERVER is the gateway, 127.0.0.1:1883 unless set. Exit codes: 0 every lamp has it, 1 refused, 2 wrong command line,
 * 3 no connection, 4 no answer in time, 5 at least one lamp doesn't have it. */

#include <cjson/cJSON.h>
#include <errno.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* How long all of it may take, in seconds. The receipt comes within the ttl of two; the rest is for connecting. */
#define PATIENCE 4

struct order {
    const char *command;
    char topic[16384]; /* 128 names of 64 bytes in each list, and the rest */
    char notices[64];  /* sig/r/{me} */
    int ended;         /* the exit code, or -1 as long as it goes on */
};

static void end(struct order *order, int code) {
    if (order->ended < 0)
        order->ended = code;
}

/* The refusal comes in the PUBACK and on sig/r/{me}; whichever is first is told. */
static void refused(struct order *order, const char *code, const char *words) {
    if (order->ended < 0)
        fprintf(stderr, "refused: %s: %s\n", code, words);
    end(order, 1);
}

static void on_connect(struct mosquitto *client, void *context, int reason, int flags, const mosquitto_property *properties) {
    (void)flags, (void)properties;
    if (reason == 0) {
        mosquitto_subscribe(client, NULL, ((struct order *)context)->notices, 1);
    } else {
        fprintf(stderr, "no connection to the gateway: %s\n", mosquitto_reason_string(reason));
        end(context, 3);
    }
}

static void on_subscribe(struct mosquitto *client, void *context, int id, int count, const int *granted) {
    struct order *order = context;
    (void)id;
    if (count < 1 || granted[0] > 2) {
        refused(order, count < 1 ? "?" : mosquitto_reason_string(granted[0]), "no receipts for us");
        return;
    }
    /* Only now: a receipt that comes before we are subscribed is lost. */
    int failed = mosquitto_publish(client, NULL, order->topic, (int)strlen(order->command), order->command, 1, false);
    if (failed) {
        fprintf(stderr, "no connection to the gateway: %s\n", mosquitto_strerror(failed));
        end(order, 3);
    }
}

static void on_publish(struct mosquitto *client, void *context, int id, int reason, const mosquitto_property *properties) {
    (void)client, (void)id;
    if (reason < 0x80)
        return;
    /* The reason code is MQTT's; Bugle's own, which says more, is the user property "code". */
    char *words = NULL, *name = NULL, *code = NULL;
    mosquitto_property_read_string(properties, MQTT_PROP_REASON_STRING, &words, false);
    mosquitto_property_read_string_pair(properties, MQTT_PROP_USER_PROPERTY, &name, &code, false);
    bool has_code = name && code && strcmp(name, "code") == 0;
    refused(context, has_code ? code : mosquitto_reason_string(reason), words ? words : "");
    free(words), free(name), free(code);
}

static const char *text(const cJSON *notice, const char *key) {
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItem(notice, key));
    return value ? value : "";
}

/* Prints what a receipt says. With more than one send under way, give each an `id=` and look for it here. */
static void process_receipt(struct order *order, const cJSON *notice) {
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(notice, "statuses")) printf("%s %s\n", item->string, item->valuestring);
    /* Long lists come in parts, and lamps for which the message is stored get a second receipt. */
    bool is_last_part = cJSON_Compare(cJSON_GetObjectItem(notice, "part"), cJSON_GetObjectItem(notice, "parts"), true);
    if (!is_last_part || !cJSON_IsTrue(cJSON_GetObjectItem(notice, "final")))
        return;
    /* Above 128 recipients those that have it aren't named, so the counts decide. */
    const cJSON *counts = cJSON_GetObjectItem(notice, "counts");
    const char *separator = "";
    cJSON_ArrayForEach(item, counts) {
        printf("%s%d %s", separator, item->valueint, item->string);
        separator = ", ";
    }
    printf("%s\n", counts && counts->child ? "" : "nobody is there");
    end(order, cJSON_GetArraySize(counts) == 1 && cJSON_HasObjectItem(counts, "delivered") ? 0 : 5);
}

static void on_message(struct mosquitto *client, void *context, const struct mosquitto_message *message) {
    (void)client;
    cJSON *notice = cJSON_ParseWithLength(message->payload, (size_t)message->payloadlen);
    if (strcmp(text(notice, "type"), "refusal") == 0) {
        /* With MQTT 3.1.1, whose PUBACK can't refuse, this is the only word of it. */
        refused(context, text(notice, "code"), text(notice, "reason"));
    } else if (strcmp(text(notice, "type"), "receipt") == 0) {
        process_receipt(context, notice);
    } /* else: of a kind that will be known some day */
    cJSON_Delete(notice);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int usage(void) {
    fprintf(stderr, "usage: switch COMMAND GROUP [only=ID,ID..] [except=ID,ID..]\n");
    return 2;
}

int main(int count, char **arguments) {
    static struct order order = {.ended = -1};
    if (count < 3)
        return usage();
    order.command = arguments[1];
    size_t room = sizeof order.topic;
    size_t length = (size_t)snprintf(order.topic, room, "sig/g/%s?receipt=each&ttl=2000", arguments[2]);
    for (int index = 3; index < count && length < room; index++) {
        const char *list = arguments[index];
        if (strncmp(list, "only=", 5) != 0 && strncmp(list, "except=", 7) != 0)
            return usage();
        length += (size_t)snprintf(order.topic + length, room - length, "&%s", list);
    }
    /* No topic of a publish may hold + or #. */
    if (length >= room || mosquitto_pub_topic_check(order.topic))
        return usage();
    char host[256] = "127.0.0.1";
    int port = 1883;
    const char *server = getenv("BUGLE_SERVER");
    if (server && sscanf(server, "%255[^:]:%d", host, &port) != 2)
        return usage();

    /* The client id is who we are to the gateway, and receipts come to it: two programs that run at the same time mustn't
     * have the same. */
    unsigned long long number;
    char me[32];
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        return perror("getrandom"), 3;
    snprintf(me, sizeof me, "switch-%016llx", number);
    snprintf(order.notices, sizeof order.notices, "sig/r/%s", me);

    mosquitto_lib_init();
    struct mosquitto *client = mosquitto_new(me, true, &order);
    if (!client)
        return perror("mosquitto_new"), 3;
    mosquitto_int_option(client, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
    mosquitto_connect_v5_callback_set(client, on_connect);
    mosquitto_subscribe_callback_set(client, on_subscribe);
    mosquitto_publish_v5_callback_set(client, on_publish);
    mosquitto_message_callback_set(client, on_message);

    double deadline = now() + PATIENCE;
    int failed = mosquitto_connect(client, host, port, 30);
    while (!failed && order.ended < 0 && now() < deadline)
        failed = mosquitto_loop(client, 100, 1);
    if (order.ended < 0 && failed) {
        const char *words = failed == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(failed);
        fprintf(stderr, "no connection to the gateway: %s; is it running (bugle serve)?\n", words);
        end(&order, 3);
    } else if (order.ended < 0) {
        fprintf(stderr, "no answer within %d s\n", PATIENCE);
        end(&order, 4);
    }
    mosquitto_disconnect(client);
    mosquitto_destroy(client);
    mosquitto_lib_cleanup();
    return order.ended;
}
