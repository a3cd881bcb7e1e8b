// The commands: what the client, the handler and the app can do, when it is possible, and what the model becomes.

import { setImmediate as immediate } from 'node:timers/promises'
import fc from 'fast-check'
import { knownFault } from './known.ts'
import { LENGTHS, type Model } from './state.ts'
import type { System } from './system.ts'

export interface Definition {
  by: 'client' | 'handler' | 'app' | 'time'
  isPossible: (model: Model) => boolean
  act: (system: System, model: Model) => unknown
}

const isOpen = ({ client, requestBody }: Model): boolean => client === 'open' && requestBody === 'open'
const isHttp1 = ({ kind }: Model): boolean => kind !== 'h2c'
const mayWrite = ({ response, handlerState, handler }: Model): boolean => (response === 'none' || response === 'begun') && !(handler === 'generator' && handlerState !== 'running')
const isRunning = ({ handlerState }: Model): boolean => handlerState === 'running'
const notGenerator = ({ handler }: Model): boolean => handler !== 'generator'

function content (size: number): Definition {
  return {
    by: 'client',
    isPossible: (model) => isOpen(model) && model.request !== 'none' && (model.request === 'chunked' || model.sent + size <= LENGTHS[model.request]),
    act ({ peer }, model) {
      peer.content('abcdefghij'.repeat(size / 10 + 1).slice(0, size))
      model.sent += size
      if (model.request === 'chunked' || model.sent < LENGTHS[model.request]) return
      peer.end()
      model.requestBody = 'complete'
    }
  }
}

function write (size: number): Definition {
  return {
    by: 'handler',
    isPossible: mayWrite,
    act ({ remote }, model) {
      const text = 'ABCDEFGHIJ'.repeat(size / 10 + 1).slice(0, size)
      if (model.handler === 'generator') remote.yield(text)
      else remote.write(text)
      model.isTouched = true
      model.response = 'begun'
      model.isSameTurn = true
    }
  }
}

export const COMMANDS: Record<string, Definition> = {
  // The client
  content: content(4),
  muchContent: content(10_000),
  endRequest: {
    by: 'client',
    isPossible: (model) => isOpen(model) && model.request === 'chunked',
    act ({ peer }, model) {
      peer.end()
      model.requestBody = 'complete'
    }
  },
  malformedChunk: {
    by: 'client',
    isPossible: (model) => isHttp1(model) && isOpen(model) && model.request === 'chunked',
    act ({ peer }, model) {
      peer.malformed!()
      model.requestBody = 'malformed'
    }
  },
  halfClose: {
    by: 'client',
    isPossible: (model) => isHttp1(model) && model.client === 'open',
    act ({ peer }, model) {
      peer.halfClose!()
      model.client = 'half-closed'
      if (model.requestBody === 'open') model.isTruncated = true
    }
  },
  reset: {
    by: 'client',
    isPossible: ({ client }) => client !== 'gone',
    act ({ peer }, model) {
      peer.reset()
      if (model.requestBody === 'open') model.isTruncated = true
      model.client = 'gone'
    }
  },
  pipeline: {
    by: 'client',
    isPossible: (model) => model.client === 'open' && model.requestBody === 'complete' && !model.hasPipelined && model.request !== 'HTTP/1.0',
    act ({ peer }, model) {
      peer.next('/next', 'next')
      model.hasPipelined = true
    }
  },
  // The handler
  flushHeaders: {
    by: 'handler',
    isPossible: (model) => notGenerator(model) && model.response === 'none',
    act ({ remote }, model) {
      remote.duplex.flushHeaders()
      model.isTouched = true
      model.response = 'begun'
    }
  },
  write: write(4),
  writeMuch: write(200_000),
  setTrailers: {
    by: 'handler',
    isPossible: (model) => mayWrite(model) && model.request !== 'HTTP/1.0',
    act ({ remote }, model) {
      remote.setTrailers()
      model.isTouched = true
    }
  },
  end: {
    by: 'handler',
    isPossible: (model) => notGenerator(model) && mayWrite(model),
    act ({ remote }, model) {
      remote.end()
      model.isTouched = true
      model.response = 'ended'
    }
  },
  loop: {
    by: 'handler',
    isPossible: ({ reading }) => reading === 'no',
    act ({ remote }, model) {
      remote.loop(false)
      model.isTouched = true
      model.reading = 'loop'
    }
  },
  echoLoop: {
    by: 'handler',
    isPossible: (model) => notGenerator(model) && mayWrite(model) && model.reading === 'no',
    act ({ remote }, model) {
      remote.loop(true)
      model.isTouched = true
      model.reading = 'loop'
    }
  },
  break: {
    by: 'handler',
    isPossible: ({ reading }) => reading === 'loop',
    act ({ remote }, model) {
      remote.isLeaving = true
      model.reading = 'leaving'
    }
  },
  listen: {
    by: 'handler',
    isPossible: ({ reading }) => reading === 'no',
    act ({ remote }, model) {
      remote.flow()
      model.isTouched = true
      model.reading = 'flowing'
    }
  },
  removeListener: {
    by: 'handler',
    isPossible: ({ reading }) => reading === 'flowing' || reading === 'paused',
    act ({ remote }, model) {
      remote.stopFlow()
      model.reading = 'leaving'
    }
  },
  pause: {
    by: 'handler',
    isPossible: ({ reading }) => reading === 'flowing',
    act ({ remote }, model) {
      remote.duplex.pause()
      model.reading = 'paused'
    }
  },
  resume: {
    by: 'handler',
    isPossible: ({ reading }) => reading === 'paused',
    act ({ remote }, model) {
      remote.duplex.resume()
      model.reading = 'flowing'
    }
  },
  destroy: {
    by: 'handler',
    isPossible: ({ response }) => response !== 'destroyed',
    act ({ remote }, model) {
      remote.duplex.destroy()
      model.isTouched = true
      model.response = 'destroyed'
    }
  },
  throw: {
    by: 'handler',
    isPossible: isRunning,
    act ({ remote }, model) {
      remote.throw()
      model.handlerState = 'threw'
    }
  },
  return: {
    by: 'handler',
    isPossible: isRunning,
    act ({ remote }, model) {
      // Fastify answers what a promise leaves unanswered.
      const isAnswer = model.handler === 'async' && model.response === 'none'
      remote.return(isAnswer)
      model.handlerState = 'returned'
      if (isAnswer) model.response = 'answered'
      if (model.handler === 'generator' && mayWrite({ ...model, handlerState: 'running' })) model.response = 'ended'
    }
  },
  returnValue: {
    by: 'handler',
    isPossible: (model) => isRunning(model) && notGenerator(model),
    act ({ remote }, model) {
      remote.returnValue()
      model.handlerState = 'returned'
      if (model.response === 'none') model.response = 'answered'
    }
  },
  send: {
    by: 'handler',
    isPossible: (model) => notGenerator(model) && model.response !== 'answered',
    act ({ remote }, model) {
      remote.send()
      if (model.response === 'none') model.response = 'answered'
    }
  },
  endRaw: {
    by: 'handler',
    isPossible: ({ response }) => response !== 'foreign' && response !== 'answered',
    act ({ remote }, model) {
      const isAnswer = model.response === 'none' && remote.written === '' // with nothing begun, an answer like any other
      remote.endRaw()
      model.response = isAnswer ? 'answered' : 'foreign'
    }
  },
  // The app
  close: {
    by: 'app',
    isPossible: ({ isClosing }) => !isClosing,
    act (system, model) {
      system.close()
      model.isClosing = true
    }
  },
  // Time: whatever is under way goes on for this many turns of the event loop
  turn: { by: 'time', isPossible: () => true, act: () => immediate() },
  turns: {
    by: 'time',
    isPossible: () => true,
    async act () { for (let i = 0; i < 20; i++) await immediate() }
  }
}

class Command implements fc.AsyncCommand<Model, System, true> {
  readonly name: string
  private readonly definition: Definition

  constructor (name: string, definition: Definition) {
    this.name = name
    this.definition = definition
  }

  async check (model: Readonly<Model>): Promise<boolean> {
    return this.definition.isPossible(model) && knownFault(model, this.name) === null
  }

  async run (model: Model, system: System): Promise<void> {
    const { by, act } = this.definition
    // A client that is gone before its request was routed, or an app that closes, has no handler.
    if (by === 'handler' && !await system.handlerRuns()) return
    system.commands++
    try {
      await act(system, model)
    } catch (error) {
      // A method may refuse what has become impossible meanwhile.
      if ((error as { code?: string }).code === undefined) throw error
    }
    if (by === 'time') model.isSameTurn = false
    if (model.response === 'begun' || model.response === 'ended') model.headWasWritten = true
  }

  toString (): string {
    return this.name
  }
}

/** Time passes as often as all the others together act. */
export function commands (replayPath: string | undefined): fc.Arbitrary<Iterable<fc.AsyncCommand<Model, System, true>>> {
  const all = Object.entries(COMMANDS).map(([name, definition]) => fc.constant(new Command(name, definition)))
  return fc.commands(all, { maxCommands: 40, size: 'max', replayPath })
}
