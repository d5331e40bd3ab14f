import datetime

from deepseek_rpc.v2 import auth_pb2 as _auth_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UploadTrainingFileRequest(_message.Message):
    __slots__ = ("spec", "data")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    spec: TrainingFileSpec
    data: bytes
    def __init__(self, spec: _Optional[_Union[TrainingFileSpec, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class TrainingFileSpec(_message.Message):
    __slots__ = ("request_id", "display_name", "size_bytes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    display_name: str
    size_bytes: int
    def __init__(self, request_id: _Optional[str] = ..., display_name: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class UploadTrainingFileResponse(_message.Message):
    __slots__ = ("file",)
    FILE_FIELD_NUMBER: _ClassVar[int]
    file: TrainingFile
    def __init__(self, file: _Optional[_Union[TrainingFile, _Mapping]] = ...) -> None: ...

class TrainingFile(_message.Message):
    __slots__ = ("id", "display_name", "size_bytes", "examples", "errors", "error_count", "warnings", "create_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    display_name: str
    size_bytes: int
    examples: int
    errors: _containers.RepeatedCompositeFieldContainer[LineError]
    error_count: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., display_name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., examples: _Optional[int] = ..., errors: _Optional[_Iterable[_Union[LineError, _Mapping]]] = ..., error_count: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LineError(_message.Message):
    __slots__ = ("line", "message")
    LINE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    line: int
    message: str
    def __init__(self, line: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Hyperparameters(_message.Message):
    __slots__ = ("epochs", "batch_size", "learning_rate", "warmup_ratio", "lora_rank", "lora_alpha", "max_length", "seed")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_RATIO_FIELD_NUMBER: _ClassVar[int]
    LORA_RANK_FIELD_NUMBER: _ClassVar[int]
    LORA_ALPHA_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    batch_size: int
    learning_rate: float
    warmup_ratio: float
    lora_rank: int
    lora_alpha: float
    max_length: int
    seed: int
    def __init__(self, epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate: _Optional[float] = ..., warmup_ratio: _Optional[float] = ..., lora_rank: _Optional[int] = ..., lora_alpha: _Optional[float] = ..., max_length: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class CreateFineTuneJobRequest(_message.Message):
    __slots__ = ("request_id", "base_model", "training_file_id", "validation_file_id", "hyperparameters", "suffix")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FILE_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FILE_ID_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SUFFIX_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    base_model: str
    training_file_id: str
    validation_file_id: str
    hyperparameters: Hyperparameters
    suffix: str
    def __init__(self, request_id: _Optional[str] = ..., base_model: _Optional[str] = ..., training_file_id: _Optional[str] = ..., validation_file_id: _Optional[str] = ..., hyperparameters: _Optional[_Union[Hyperparameters, _Mapping]] = ..., suffix: _Optional[str] = ...) -> None: ...

class CreateFineTuneJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: FineTuneJob
    def __init__(self, job: _Optional[_Union[FineTuneJob, _Mapping]] = ...) -> None: ...

class FineTuneJob(_message.Message):
    __slots__ = ("id", "state", "base_model", "fine_tuned_model", "training_file_id", "hyperparameters", "step", "total_steps", "trained_tokens", "error", "create_time", "end_time")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[FineTuneJob.State]
        STATE_VALIDATING: _ClassVar[FineTuneJob.State]
        STATE_QUEUED: _ClassVar[FineTuneJob.State]
        STATE_RUNNING: _ClassVar[FineTuneJob.State]
        STATE_PAUSING: _ClassVar[FineTuneJob.State]
        STATE_PAUSED: _ClassVar[FineTuneJob.State]
        STATE_CANCELLING: _ClassVar[FineTuneJob.State]
        STATE_WRITING_RESULTS: _ClassVar[FineTuneJob.State]
        STATE_SUCCEEDED: _ClassVar[FineTuneJob.State]
        STATE_FAILED: _ClassVar[FineTuneJob.State]
        STATE_CANCELLED: _ClassVar[FineTuneJob.State]
    STATE_UNSPECIFIED: FineTuneJob.State
    STATE_VALIDATING: FineTuneJob.State
    STATE_QUEUED: FineTuneJob.State
    STATE_RUNNING: FineTuneJob.State
    STATE_PAUSING: FineTuneJob.State
    STATE_PAUSED: FineTuneJob.State
    STATE_CANCELLING: FineTuneJob.State
    STATE_WRITING_RESULTS: FineTuneJob.State
    STATE_SUCCEEDED: FineTuneJob.State
    STATE_FAILED: FineTuneJob.State
    STATE_CANCELLED: FineTuneJob.State
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    FINE_TUNED_MODEL_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FILE_ID_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: FineTuneJob.State
    base_model: str
    fine_tuned_model: str
    training_file_id: str
    hyperparameters: Hyperparameters
    step: int
    total_steps: int
    trained_tokens: int
    error: _status_pb2.Status
    create_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[FineTuneJob.State, str]] = ..., base_model: _Optional[str] = ..., fine_tuned_model: _Optional[str] = ..., training_file_id: _Optional[str] = ..., hyperparameters: _Optional[_Union[Hyperparameters, _Mapping]] = ..., step: _Optional[int] = ..., total_steps: _Optional[int] = ..., trained_tokens: _Optional[int] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetFineTuneJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class GetFineTuneJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: FineTuneJob
    def __init__(self, job: _Optional[_Union[FineTuneJob, _Mapping]] = ...) -> None: ...

class ListFineTuneJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFineTuneJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[FineTuneJob]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[FineTuneJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelFineTuneJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class CancelFineTuneJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: FineTuneJob
    def __init__(self, job: _Optional[_Union[FineTuneJob, _Mapping]] = ...) -> None: ...

class WatchFineTuneJobRequest(_message.Message):
    __slots__ = ("job_id", "after_seq")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    after_seq: int
    def __init__(self, job_id: _Optional[str] = ..., after_seq: _Optional[int] = ...) -> None: ...

class WatchFineTuneJobResponse(_message.Message):
    __slots__ = ("seq", "time", "state", "message", "metrics", "checkpoint")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time: _timestamp_pb2.Timestamp
    state: FineTuneJob.State
    message: str
    metrics: FineTuneMetrics
    checkpoint: FineTuneCheckpoint
    def __init__(self, seq: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[FineTuneJob.State, str]] = ..., message: _Optional[str] = ..., metrics: _Optional[_Union[FineTuneMetrics, _Mapping]] = ..., checkpoint: _Optional[_Union[FineTuneCheckpoint, _Mapping]] = ...) -> None: ...

class FineTuneMetrics(_message.Message):
    __slots__ = ("step", "loss", "validation_loss", "learning_rate")
    STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    step: int
    loss: float
    validation_loss: float
    learning_rate: float
    def __init__(self, step: _Optional[int] = ..., loss: _Optional[float] = ..., validation_loss: _Optional[float] = ..., learning_rate: _Optional[float] = ...) -> None: ...

class FineTuneCheckpoint(_message.Message):
    __slots__ = ("id", "step")
    ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    id: str
    step: int
    def __init__(self, id: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...
