// Of what kinds the apps of this hunt are: their transports, and their hooks.

export const TRANSPORTS = ['tcp', 'tls', 'unix', 'memory', 'async constraint', 'server factory', 'h2c', 'h2', 'http/1 of h2', 'ordinary', 'ordinary, tls'] as const
export type Transport = typeof TRANSPORTS[number]

/** Where ordinary routes are compared with those of an app without the plugin. */
export function isComparison (transport: Transport): boolean {
  return transport.startsWith('ordinary')
}

/** Of the connections of a comparison. */
export function tcpOrTls (transport: Transport): 'tcp' | 'tls' {
  return transport === 'ordinary' ? 'tcp' : 'tls'
}

/** Where streams of HTTP/2 carry the exchanges. */
export function isHttp2 (transport: Transport): boolean {
  return transport === 'h2c' || transport === 'h2'
}

/** Where Node reads and writes, and not the plugin's own reader and writer. */
export function isMessageBased (transport: Transport): boolean {
  return isHttp2(transport) || transport === 'async constraint' || transport === 'server factory'
}

export const STYLES = ['callback', 'callback, later', 'callback, ms', 'callback, error', 'callback, throws', 'async', 'async, later', 'async, ms', 'async, throws'] as const
export type Style = typeof STYLES[number]

/** Hooks that may fail without an answer of their own. */
export const LATE_HOOKS = ['onTimeout', 'onError', 'onRequestAbort', 'onResponse', 'onSend'] as const
/** Hooks that come before the handler: they only take their time. */
export const EARLY_HOOKS = ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const
export type HookName = typeof LATE_HOOKS[number] | typeof EARLY_HOOKS[number]
