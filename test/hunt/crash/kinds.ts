// The transports and the styles of hooks that the apps of this hunt have.

export const TRANSPORTS = ['tcp', 'tls', 'unix', 'memory', 'async constraint', 'server factory', 'h2c', 'h2', 'http/1 of h2', 'ordinary', 'ordinary, tls'] as const
export type Transport = typeof TRANSPORTS[number]

/** Ordinary routes of the app are compared with those of an app without the plugin. */
export function isComparison (transport: Transport): boolean {
  return transport.startsWith('ordinary')
}

/** The transport of the connections in a comparison. */
export function tcpOrTls (transport: Transport): 'tcp' | 'tls' {
  return transport === 'ordinary' ? 'tcp' : 'tls'
}

/** Exchanges are streams of HTTP/2. */
export function isHttp2 (transport: Transport): boolean {
  return transport === 'h2c' || transport === 'h2'
}

/** Exchanges use Node's request and response, not the raw connection. */
export function usesNodeTransport (transport: Transport): boolean {
  return isHttp2(transport) || transport === 'async constraint' || transport === 'server factory'
}

export const STYLES = ['callback', 'callback, later', 'callback, ms', 'callback, error', 'callback, throws', 'async', 'async, later', 'async, ms', 'async, throws'] as const
export type Style = typeof STYLES[number]

/** Hooks that may also fail. */
export const LATE_HOOKS = ['onTimeout', 'onError', 'onRequestAbort', 'onResponse', 'onSend'] as const
/** Hooks before the handler. They may be slow, but do not fail. */
export const EARLY_HOOKS = ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const
export type HookName = typeof LATE_HOOKS[number] | typeof EARLY_HOOKS[number]
