// Between routing and the handler: Fastify does not parse the body, and the request is admitted or refused.

import type { FastifyReply, FastifyRequest } from 'fastify'
import { BodyLimitError, TooManyExchangesError, UpgradeError } from '../errors.ts'
import { dropBadReason } from '../exchange/response-head.ts'
import { shortLived } from '../node/streams.ts'
import { isTunnel } from '../transfer/tunnel.ts'
import { bodyError } from './body.ts'
import { endsErrorHandling, hooksOf, isInOnError, runsLast, withoutBody } from './internals.ts'
import { type RouteExchange, exchangeOf } from './route-exchange.ts'

/** The value of `Retry-After` for a refused client, in seconds. */
const RETRY_AFTER = 1

const RESOLVED = Promise.resolve()

/** The preParsing hook of duplex routes. */
export function skipBodyParsing (request: FastifyRequest, reply: FastifyReply, payload: unknown, done: (error: Error | null, payload?: unknown) => void): void {
  const exchange = exchangeOf(request.raw)
  if (!exchange.hasSkippedOnce && !ensureLastHook(reply)) {
    exchange.hasSkippedOnce = true
    done(null, payload)
    return
  }
  const error = admit(exchange, reply)
  // Deferred: if no earlier hook was asynchronous, Node's parser is still on the call stack, and the connection not borrowed yet.
  // By a microtask: what a handler writes is sent in the next tick, and its promise may be rejected before that.
  RESOLVED.then(() => {
    if (error === null) withoutBody(request, () => { done(null, payload) })
    else done(error)
  })
}

/** For the preParsing hooks of each route: whether `skipBodyParsing` was the last of them at the first request. */
const wasLastHook = new WeakMap<object, boolean>()

/**
 * Makes `skipBodyParsing` the last preParsing hook of the route. A plugin that was registered later may have added a hook behind
 * it. Then `skipBodyParsing` is added once more, behind that hook.
 *
 * @returns whether it already was the last
 */
function ensureLastHook (reply: FastifyReply): boolean {
  const hooks = hooksOf(reply, 'preParsing')
  let last = wasLastHook.get(hooks)
  if (last === undefined) {
    last = hooks.length === 0 || runsLast(reply, skipBodyParsing)
    if (!last) hooks.push(skipBodyParsing)
    wasLastHook.set(hooks, last)
  }
  return last
}

/**
 * Admits a request or refuses it. An admitted request counts for `maxExchanges` until its exchange has ended.
 *
 * @returns the error with which it is refused; null if it is admitted
 */
function admit (state: RouteExchange, reply: FastifyReply): Error | null {
  const { setup: { options, admitted } } = state
  const exchange = state.begin(reply)
  const { framingError, requestFraming } = exchange.transport
  state.send = reply.send
  reply.send = recordAnswer
  if (framingError !== null) return framingError
  if (requestFraming.length > options.bodyLimit) return new BodyLimitError(options.bodyLimit)
  if (state.formatError !== null) return state.formatError
  if (options.maxExchanges === Infinity) return null
  if (admitted.count >= options.maxExchanges) {
    reply.header('retry-after', RETRY_AFTER)
    return new TooManyExchangesError(options.maxExchanges)
  }
  if (!exchange.isOver) {
    admitted.count++
    exchange.onEnded = shortLived(() => { admitted.count-- })
  }
  return null
}

/** A tunnel has no content, and the client sends other things through it than requests: Fastify cannot answer with one. */
function tunnelError ({ request, statusCode }: FastifyReply, payload: unknown): Error | null {
  return isTunnel(request.method, statusCode) && !(payload instanceof Error) ? new UpgradeError('a tunnel begins with reply.duplex, not with an answer of Fastify') : null
}

/**
 * Replaces `reply.send`, to record that an answer has begun. Asynchronous hooks may run between `send` and the head, and nothing
 * else shows during that time that there is an answer. One function for all replies: with a function for each, V8 kept every
 * exchange until the next full garbage collection.
 */
function recordAnswer (this: FastifyReply, payload?: unknown): FastifyReply {
  const state = exchangeOf(this.request.raw)
  const { exchange, stream } = state
  // Nothing can be answered any more. The hooks of an answer may still be running when its exchange fails.
  if (exchange!.failure !== null) return this
  if (stream?.headersSent) {
    state.refuseLate('reply.send()')
    return this
  }
  // The handler has returned behind its head, and the head was taken back since: Fastify would answer with nothing.
  if (payload === undefined && state.isUnattended && state.unansweredFailure !== null) {
    state.answerNow(state.unansweredFailure)
    return this
  }
  state.isHandlingError = false
  exchange!.happens('Fastify answers')
  const error = dropBadReason(this) ?? tunnelError(this, payload) ?? bodyError(payload)
  if (error !== null && !(payload instanceof Error)) payload = error
  if (!state.isAnsweringFailure) return state.send!.call(this, payload)
  // Otherwise Fastify would throw if the handler answers late, or would run the onSend hooks twice.
  if (state.hasAnsweredFailure || isInOnError(this)) return this
  const isLastAnswer = endsErrorHandling(this, payload)
  state.send!.call(this, payload)
  if (isLastAnswer) state.hasAnsweredFailure = true
  return this
}
