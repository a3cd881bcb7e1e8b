// What this plugin must know of the insides of Fastify: where it keeps hooks and servers, and what `hijack()` forgets.

import type { IncomingMessage, Server } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

type Listener = (...args: any[]) => void

/**
 * The servers Fastify made beside its own, for the other addresses of `localhost`; there are none before it listens.
 */
export function otherServers (app: FastifyInstance): Server[] {
  return ownSymbol(app, 'fastify.serverBindings') ?? []
}

/** The hooks of the reply's route, in order, the app's own before; the very array Fastify runs them from. */
export function hooksOf (reply: FastifyReply, name: 'preParsing' | 'onError' | 'onTimeout'): ((...args: any[]) => unknown)[] {
  return ownSymbol(reply.request, 'fastify.context')?.[name] ?? []
}

/**
 * `reply.hijack()`, but for the abort of `request.signal`, which Fastify drops for a reply that leaves its care. This
 * one does not.
 *
 * @returns what to call when the exchange has ended well; without it `request.signal` would abort then
 */
export function hijack (reply: FastifyReply): () => void {
  const { raw } = reply.request
  const onAbort = keepingCloseListeners(raw, () => { reply.hijack() })
  return onAbort === undefined ? ignore : () => { raw.removeListener('close', onAbort) }
}

/** Does something that makes Fastify take its abort of `request.signal` off the request, and puts it back. */
export function keepingCloseListeners (request: IncomingMessage, action: () => void): Listener | undefined {
  const before = request.listenerCount('close') > 0 ? request.listeners('close') : []
  action()
  const after = before.length > 0 ? request.listeners('close') : []
  const gone = before.find((listener) => !after.includes(listener)) as Listener | undefined
  if (gone !== undefined) request.on('close', gone)
  return gone
}

/**
 * Aborts `request.signal` with a reason: Fastify's own aborts have none. Who asks for the signal later gets it aborted.
 */
export function abortSignal (request: FastifyRequest, reason: Error): void {
  if (!request.signal.aborted) ownSymbol(request, 'fastify.request.signal')?.abort(reason)
}

/** Whether onError hooks run for a reply: Fastify throws from its `send` then. */
export function isInOnError (reply: FastifyReply): boolean {
  return ownSymbol(reply, 'fastify.reply.isRunningOnErrorHook') === true
}

/** Whether `send` with this payload ends the handling of an error: no further error handler would be asked. */
export function endsErrorHandling (reply: FastifyReply, payload: unknown): boolean {
  return !(payload instanceof Error) || ownSymbol(reply, 'fastify.reply.nextErrorHandler')?.func === undefined
}

/** Symbols found before: looking through all those of an object takes long. */
const known = new Map<string, symbol>()

function ownSymbol (object: object, description: string): any {
  let symbol = known.get(description)
  if (symbol === undefined || !Object.hasOwn(object, symbol)) {
    symbol = Object.getOwnPropertySymbols(object).find((one) => one.description === description)
    if (symbol === undefined) return undefined
    known.set(description, symbol)
  }
  return (object as Record<symbol, unknown>)[symbol]
}

function ignore (): void {}
