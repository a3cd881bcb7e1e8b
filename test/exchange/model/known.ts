// Open faults, by their number in the list of issue 19: what makes them show is left out of the runs, or their effect allowed.
// Take out what is mended. MODEL_MENDED=4,18 does so for one run.

import type { Model } from './state.ts'

interface Known {
  fault: number
  what: string
  /** Whether this command, now, would show the fault. */
  excludes: (model: Model, command: string) => boolean
}

const hasBegun = ({ response }: Model): boolean => response === 'begun' || response === 'ended'

const KNOWN: Known[] = [
  {
    fault: 4,
    what: 'reply.send() or a returned value after the head',
    excludes: (model, command) => (command === 'send' || command === 'returnValue') && hasBegun(model)
  },
  {
    fault: 18,
    what: 'somebody else ends a response that has begun',
    excludes: (model, command) => command === 'endRaw' && hasBegun(model)
  }
]

const mended = new Set((process.env.MODEL_MENDED ?? '').split(',').map(Number))

export function knownFault (model: Model, command: string): Known | null {
  return KNOWN.find(({ fault, excludes }) => !mended.has(fault) && excludes(model, command)) ?? null
}
