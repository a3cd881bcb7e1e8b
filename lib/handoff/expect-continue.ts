// Expect: 100-continue (RFC 9110 section 10.1.1).

import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { routingConnection } from './connection.ts'

/**
 * The listener for 'checkContinue'. Without one, Node sends the 100 itself, before 'request'. A duplex route sends it with
 * the first read instead, so that a rejection saves the upload. On any other route it is sent here, ahead of the response.
 */
export function onCheckContinue (this: Server, request: IncomingMessage, response: ServerResponse): void {
  // The app's own listener answers or emits 'request', as it would without us.
  if (this.listenerCount('checkContinue') > 1) return
  const { writeHead } = response
  const goOn = (): void => {
    response.writeHead = writeHead
    if (!routingConnection(request)?.claim) response.writeContinue()
  }
  // An answer given while the request is routed must not overtake the 100.
  response.writeHead = ((...args: Parameters<typeof writeHead>) => {
    goOn()
    return response.writeHead(...args)
  }) as typeof writeHead
  this.emit('request', request, response)
  if (response.writeHead !== writeHead) goOn()
}
