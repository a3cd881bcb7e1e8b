// Between routing and the handler: the body is kept from Fastify's parsers, and the request is let in or refused.

import type { FastifyReply, FastifyRequest } from 'fastify'
import { BodyLimitError, TooManyExchangesError } from '../errors.ts'
import { runHooks } from './hooks.ts'
import { endsErrorHandling, hideBody, hooksOf, isInOnError, runsLast } from './internals.ts'
import { type RouteExchange, exchangeOf } from './route-exchange.ts'

/** Seconds after which a refused client may try again. */
const RETRY_AFTER = 1

/** The preParsing hook of duplex routes. */
export function skipBodyParsing (request: FastifyRequest, reply: FastifyReply, payload: unknown, done: (error: Error | null, payload?: unknown) => void): void {
  const exchange = exchangeOf(request.raw)
  if (!exchange.skippedOnce && !isLast(reply)) {
    exchange.skippedOnce = true
    done(null, payload)
    return
  }
  const error = admit(exchange, reply)
  // Without an asynchronous hook before, Node's parser is still on the call stack, and the connection not borrowed yet.
  process.nextTick(() => {
    if (error === null) hideBody(request)
    done(error, payload)
  })
}

/** The preParsing hooks of routes, and whether `skipBodyParsing` was the last of them when they were first seen. */
const orders = new WeakMap<object, boolean>()

/** A plugin that was registered later may have added a hook behind ours. Then ours runs once more, behind that one. */
function isLast (reply: FastifyReply): boolean {
  const hooks = hooksOf(reply, 'preParsing')
  let last = orders.get(hooks)
  if (last === undefined) {
    last = hooks.length === 0 || runsLast(reply, skipBodyParsing)
    if (!last) hooks.push(skipBodyParsing)
    orders.set(hooks, last)
  }
  return last
}

/** Lets a request in, which then counts until its exchange has ended. @returns the error that refuses it; null if it is let in */
function admit (exchange: RouteExchange, reply: FastifyReply): Error | null {
  const { setup: { options, admitted } } = exchange
  const transport = exchange.transportOf(reply)
  const { framingError, requestFraming } = transport
  exchange.send = reply.send
  reply.send = noteAnswer
  const onTimeout = hooksOf(reply, 'onTimeout')
  if (onTimeout.length > 0) transport.onIdleTimeout = () => { runHooks(onTimeout, reply.request, reply) }
  if (framingError !== null) return framingError
  try {
    exchange.authorityOf(reply.request.raw)
  } catch (error) {
    return error as Error
  }
  if (requestFraming.length > options.bodyLimit) return new BodyLimitError(options.bodyLimit)
  if (options.maxExchanges === Infinity) return null
  if (admitted.count >= options.maxExchanges) {
    reply.header('retry-after', RETRY_AFTER)
    return new TooManyExchangesError(options.maxExchanges)
  }
  if (!transport.hasEnded) {
    admitted.count++
    transport.onEnded = () => { admitted.count-- }
  }
  return null
}

/**
 * Stands in the place of `reply.send`. Hooks that take their time may run between it and the head, and nothing else tells of
 * the answer meanwhile. One function for all replies: with one for each, V8 was seen to keep every exchange until the next
 * full collection.
 */
function noteAnswer (this: FastifyReply, payload?: unknown): FastifyReply {
  const exchange = exchangeOf(this.request.raw)
  // Nothing can be answered any more. What has failed may be the very answer that hooks are still running for.
  if (exchange.failure !== null) return this
  exchange.setAnswerBegun()
  if (!exchange.answersFailure) return exchange.send!.call(this, payload)
  // Fastify would throw for a handler that answers late, or run the onSend hooks twice.
  if (exchange.failureAnswered || isInOnError(this)) return this
  const isLastAnswer = endsErrorHandling(this, payload)
  exchange.send!.call(this, payload)
  if (isLastAnswer) exchange.failureAnswered = true
  return this
}
