// Runs the handler of a duplex route. What it returns or yields is written to the response. What it throws is answered, or cuts
// the response off.

import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { AbortedError, SentLateError, SyncGeneratorError } from '../errors.ts'
import { type Body, isBody, writeBody } from './body.ts'
import { isPromise } from './hooks.ts'
import { type ErrorHandler, takeNextErrorHandler, wrapNextErrorHandlers } from './internals.ts'
import { LATE_VALUE, type RouteExchange, exchangeOf } from './route-exchange.ts'

export type Handler = (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply) => any

const AsyncGeneratorFunction = Object.getPrototypeOf(async function * () {}).constructor
const GeneratorFunction = Object.getPrototypeOf(function * () {}).constructor

/**
 * The onRoute hook that runs before those of other plugins. It wraps a handler that is a generator into one that returns a
 * promise. Other plugins may wrap the handler too. A tracer, for example, then measures the whole run of the generator, not only
 * the call that creates it.
 *
 * @throws {SyncGeneratorError} FST_ERR_DUPLEX_SYNC_GENERATOR
 */
export function wrapGenerator (route: RouteOptions): void {
  const { duplex, handler } = route as { duplex?: unknown, handler: Handler }
  if (!duplex) return
  if (handler instanceof GeneratorFunction) throw new SyncGeneratorError(String(route.method), route.url)
  if (!(handler instanceof AsyncGeneratorFunction)) return
  route.handler = copyProperties(handler, function (request, reply) {
    return writeBody(handler.call(this, request, reply) as Body, reply)
  })
}

/**
 * Gives a handler the properties of the one that it wraps: the name, after which tracers name their spans, and those that other
 * plugins have set.
 */
function copyProperties (wrapped: Handler, handler: Handler): Handler {
  const { prototype, ...properties } = Object.getOwnPropertyDescriptors(wrapped)
  return Object.defineProperties(handler, properties)
}

/** Wraps the handler of a route. The signature (request, reply) must stay: @fastify/websocket calls handlers with it. */
export function wrapHandler (handler: Handler): Handler {
  return copyProperties(handler, function (request, reply) {
    const exchange = exchangeOf(request.raw)
    exchange.handlerHasBegun = true
    reply.then = onReplyReturned
    let result
    try {
      result = handler.call(this, request, reply)
    } catch (error) {
      return onThrow(exchange, reply, error as Error)
    }
    exchange.warnOfRawReader()
    const promise = promiseOf(result, exchange, reply)
    if (promise !== null) return afterPromise(promise, exchange, reply)
    exchange.isUnattended = true
    const answer = answerOf(exchange, result)
    exchange.onReturn(result)
    const failure = exchange.unansweredFailure
    if (failure !== null) exchange.answerFailure(failure)
    return answer
  })
}

/**
 * Replaces `reply.then`, which JavaScript calls when a handler with a promise returns the reply: Fastify then waits for the end of the
 * response. Nobody is left who would answer a failure.
 */
function onReplyReturned (this: FastifyReply, fulfilled: () => void): void {
  const exchange = exchangeOf(this.request.raw)
  exchange.isUnattended = true
  const failure = exchange.unansweredFailure
  if (failure !== null) exchange.answerFailure(failure)
  // A handler that has written may await a reply by mistake. Once the head is handed over, nobody waits for the end of the response.
  if (exchange.stream?.headersSent) setImmediate(waitForReply, this, fulfilled)
  else waitForReply(this, fulfilled)
}

function waitForReply (reply: FastifyReply, fulfilled: () => void): void {
  // An exchange that fails is logged once, when it ends.
  Object.getPrototypeOf(reply).then.call(reply, fulfilled, () => fulfilled())
}

async function afterPromise (result: PromiseLike<unknown>, exchange: RouteExchange, reply: FastifyReply): Promise<unknown> {
  try {
    let value = await result
    if (isBodyOf(value, exchange)) value = await writeBody(value, reply)
    exchange.warnOfRawReader()
    exchange.isUnattended = true
    // With `undefined`, Fastify would answer if Node does not know of the head.
    const answer = exchange.stream?.headersSent && !reply.raw.headersSent ? reply : answerOf(exchange, value)
    exchange.onReturn(value)
    if (exchange.isAnsweringFailure) return reply
    const failure = failureBehind(value, exchange)
    return failure === null ? answer : onThrow(exchange, reply, failure)
  } catch (error) {
    return onThrow(exchange, reply, error as Error)
  }
}

/** What a handler has returned, if it must be waited for: its promise, or the writing of its body. Otherwise null. */
function promiseOf (result: unknown, exchange: RouteExchange, reply: FastifyReply): PromiseLike<unknown> | null {
  if (result instanceof Promise && !(Symbol.asyncIterator in result)) return result // the usual case: `isBody` takes longer
  if (isBodyOf(result, exchange)) return writeBody(result, reply)
  return isPromise(result) && result !== reply as unknown ? result : null
}

/** Whether a handler has returned a body, other than the stream of its exchange. */
function isBodyOf (value: unknown, { stream }: RouteExchange): value is Body {
  return isBody(value) && value !== stream
}

/** Why the exchange has failed, if nobody has answered, and the handler has returned no answer either. Otherwise null. */
function failureBehind (value: unknown, { stream, unansweredFailure }: RouteExchange): Error | null {
  return value === undefined || value === stream ? unansweredFailure : null
}

/** The answer that Fastify is to send. Undefined if there is none: the response has begun, or `reply.duplex.end()` was returned. */
function answerOf ({ stream }: RouteExchange, value: unknown): unknown {
  return stream?.headersSent || value === stream ? undefined : value
}

/**
 * Wraps the error handler of a route, which Fastify calls first, and with it those that Fastify calls after it: they may answer
 * as handlers do.
 *
 * @param handler the route's own; undefined if it has none
 */
export function wrapRouteErrorHandler (handler: ErrorHandler | undefined): ErrorHandler {
  return wrapErrorHandler(function (error, request, reply) {
    wrapNextErrorHandlers(reply, wrapErrorHandler)
    return (handler ?? takeNextErrorHandler(reply)).call(this, error, request, reply)
  })
}

function wrapErrorHandler (handler: ErrorHandler): ErrorHandler {
  return function (error, request, reply) {
    const exchange = exchangeOf(request.raw)
    exchange.isHandlingError = true
    let result
    try {
      result = handler.call(this, error, request, reply)
    } catch (error) {
      onErrorHandlerThrow(exchange, reply, error as Error)
      return
    }
    const promise = promiseOf(result, exchange, reply)
    if (promise !== null) return afterErrorHandler(promise, exchange, reply)
    if (!exchange.isLate(result)) return answerOf(exchange, result)
    onErrorHandlerThrow(exchange, reply, new SentLateError(LATE_VALUE))
  }
}

async function afterErrorHandler (result: PromiseLike<unknown>, exchange: RouteExchange, reply: FastifyReply): Promise<unknown> {
  try {
    let value = await result
    if (isBodyOf(value, exchange)) value = await writeBody(value, reply)
    const failure = exchange.isLate(value) ? new SentLateError(LATE_VALUE) : failureBehind(value, exchange)
    if (failure !== null) throw failure
    return exchange.stream?.headersSent ? reply : answerOf(exchange, value)
  } catch (error) {
    onErrorHandlerThrow(exchange, reply, error as Error)
  }
}

/** An error handler has failed. If it has not begun to answer, Fastify calls the next one. */
function onErrorHandlerThrow (exchange: RouteExchange, reply: FastifyReply, error: Error): void {
  exchange.isHandlingError = false
  const stream = exchange.hasErrorStream ? exchange.stream! : null
  if (stream?.writableFinished) reply.log.error({ err: error }, 'duplex error handler failed after its response')
  else stream?.destroy(error)
  if (!stream?.headersSent) throw error
}

/** The handler has failed. Before the head, Fastify answers. After the head, the response can only be cut off. */
function onThrow ({ exchange, stream, failure, isAnsweringFailure, hasErrorStream }: RouteExchange, reply: FastifyReply, error: Error): FastifyReply | undefined {
  exchange!.happens('handler returned')
  const isAnswered = isAnsweringFailure || hasErrorStream
  if (isAnswered || failure !== null) {
    // The exchange had failed before. Usually the handler throws that same failure.
    if (isAnswered || failure !== error) reply.log.debug({ err: error }, 'duplex handler failed after its exchange')
    return isAnswered ? reply : undefined
  }
  // An upstream, for example, that was aborted together with `request.signal`: the client has ended its side, and nobody reads an answer.
  const { client, request } = exchange!.life
  if (client === 'half-closed' && request !== 'failed' && (error === reply.request.signal.reason || (error as Error | undefined)?.name === 'AbortError')) {
    exchange!.happens('client gone', new AbortedError())
    return reply
  }
  if (stream === null) throw error
  if (exchange!.canAnswer || !(stream.headersSent || stream.isDetached)) {
    stream.destroy(error)
    throw error
  }
  if (stream.writableFinished || stream.isDetached) {
    reply.log.error({ err: error }, 'duplex handler failed after its response')
  } else {
    stream.fail(error)
  }
  return undefined
}
